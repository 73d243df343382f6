"""Prompt and answer as tokens: tokenised together, the border found from character offsets."""

import dataclasses
import itertools
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import MatrixType, Stack, WeightSite
from strop.errors import TaskError, quoted
from strop.interventions import prompt_lengths
from strop.scoring.chat_template import asked_of
from strop.scoring.forms import CAUSAL, Form, Row, TokenSequence
from strop.scoring.place import place_of
from strop.scoring.resources import CPU, Resources
from strop.tasks.examples import Example, continuations_of
from strop.tasks.task_file import Score


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """Sequences of like length, padded on the right, with the positions whose next token is scored.

    Continuations of one prompt that differ in their last tokens only, as " 1", " 2" and " 3" do, are one row: whoever reads
    the longest has read the others.
    """

    input_ids: Tensor
    """(rows, tokens): each up to its last scored token, which is only predicted and not read."""
    rows: Tensor
    """(positions,): the row of the batch."""
    columns: Tensor
    """(positions,): the token whose logits predict the scored one."""
    targets: Tensor
    """(positions,): the token to predict."""
    sequences: tuple[int, ...]
    """For each position, the index of its sequence among all; a sequence's positions stand together, in their order."""
    prompt_lengths: Tensor
    """(rows,): how many of its tokens are the prompt's."""
    counterfactual_ids: Tensor | None = None
    """(rows, tokens), where every sequence has some."""
    scored_positions: int = Resources.scored_positions
    """How many positions' logits may be had at once."""
    beside: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    """What the model is called with beside the ids, such as the attention mask of a model that reads in both directions."""

    @property
    def real(self) -> Tensor:
        """(rows, tokens): which tokens of the ids are not padding."""
        return self.beside["attention_mask"].bool() if "attention_mask" in self.beside else self._up_to_the_last_scored

    def real_at(self, site: WeightSite) -> Tensor:
        """Return which of the tokens a matrix sees are not padding, (rows, tokens): a decoder's are others than its encoder's."""
        read_from_encoder = site.stack is Stack.CROSS and site.matrix_type in (MatrixType.KEY, MatrixType.VALUE)
        if "decoder_input_ids" not in self.beside or site.stack is Stack.ENCODER or read_from_encoder:
            return self.real
        return self._up_to_the_last_scored

    @property
    def _up_to_the_last_scored(self) -> Tensor:
        last = torch.zeros(self.input_ids.shape[0], dtype=torch.long, device=self.rows.device)
        last = last.scatter_reduce(0, self.rows, self.columns, "amax")
        width = self.beside.get("decoder_input_ids", self.input_ids).shape[1]
        return torch.arange(width, device=last.device) <= last[:, None]

    def with_prompts_known(self) -> AbstractContextManager[None]:
        """Let edits of hidden states know where the prompts end, for a block in which a model is called on the batch."""
        return prompt_lengths(self.prompt_lengths)

    def read_by(self, model: PreTrainedModel) -> None:
        """Let a model's body read the sequences, without its head."""
        with self.with_prompts_known():
            model.base_model(input_ids=self.input_ids, use_cache=False, **self.beside)

    def slices(self) -> list[slice]:
        """Return the scored positions a few at a time: all at once but for a row as long as that."""
        count = self.rows.shape[0]
        step = self.scored_positions
        return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def encode(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    score: Score,
    *,
    longest: int,
    vocabulary: int | None = None,
    counterfactuals: bool = False,
    form: Form = CAUSAL,
) -> list[TokenSequence]:
    """Turn examples into token sequences, one for each continuation that is scored.

    A token that reaches past the prompt's last character belongs to the continuation, and so does, where an example has
    choices, every token from the first on that any of them changes: all its choices go on from the same tokens. For
    `choice` every choice becomes a sequence; for all other scores only the answer does, for `first_token` once its row's
    choices are seen to begin with different tokens.

    Args:
        examples: with choices where the score is `choice`, and where they are the labels of `first_token`.
        tokenizer: a fast one.
        score: the task's.
        longest: the model's context in tokens.
        vocabulary: how many tokens the model knows, where it is at hand.
        counterfactuals: encode each example's counterfactual prompt too.
        form: how the model reads them.

    Raises:
        TaskError: a row is longer than the context, its prompt or continuation has no token of its own, or has one that
            the model does not know, two labels begin with the same token, or a counterfactual is wanted and is missing or
            of another length.
    """
    asked = [asked_of(example, tokenizer) for example in examples]
    found = form.sequences(examples, asked, tokenizer)
    sequences = _common_borders([_with_something_before(examples[one.owner], one, score) for one in found])
    if score == "first_token":
        _refuse_labels_alike(examples, sequences, tokenizer)
    if score != "choice":
        sequences = [
            one for one in sequences if continuations_of(examples[one.owner])[one.choice] == examples[one.owner].answer
        ]
    for sequence in sequences:
        _refuse_misfit(examples[sequence.owner], sequence, tokenizer, longest=longest, vocabulary=vocabulary)
    if not counterfactuals:
        return sequences
    return _with_counterfactuals(sequences, examples, tokenizer, score, vocabulary=vocabulary, form=form)


def _with_something_before(example: Example, sequence: TokenSequence, score: Score) -> TokenSequence:
    """Return a sequence whose first scored token has one before it, or raise TaskError."""
    first = max(sequence.first_scored, 1) if score == "perplexity" else sequence.first_scored
    if first == 0:
        continuation = continuations_of(example)[sequence.choice]
        raise TaskError(
            f"{place_of(example)}: the prompt has no token before the answer {quoted(continuation)}; give it one."
        )
    if first >= len(sequence.ids):
        raise TaskError(f"{place_of(example)}: one token alone has nothing to be predicted from; drop the row.")
    return dataclasses.replace(sequence, first_scored=first)


def _common_borders(sequences: Sequence[TokenSequence]) -> list[TokenSequence]:
    """Let all continuations of an example be scored from the first token on that any of them changes."""
    found: list[TokenSequence] = []
    for _, group in itertools.groupby(sequences, key=lambda sequence: sequence.owner):
        own = list(group)
        border = min(sequence.first_scored for sequence in own)
        low, high = min(one.ids for one in own), max(one.ids for one in own)  # all others lie between
        same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(low, high, strict=False)))
        found += [dataclasses.replace(sequence, first_scored=min(border, same)) for sequence in own]
    return found


def _refuse_misfit(
    example: Example,
    sequence: TokenSequence,
    tokenizer: PreTrainedTokenizerBase,
    *,
    longest: int,
    vocabulary: int | None,
) -> None:
    """Raise TaskError where a sequence is nothing a model can read."""
    where, ids = place_of(example), sequence.ids + sequence.after
    if sequence.first_scored == 0:
        raise TaskError(f"{where}: the prompt has no token that all its choices leave as it is; give it one.")
    if len(ids) > longest:
        raise TaskError(f"{where}: {len(ids)} tokens do not fit the model's context of {longest}; shorten the row.")
    refuse_unknown_token(ids, tokenizer, where=where, vocabulary=vocabulary)


def vocabulary_of(model: PreTrainedModel) -> int:
    """Return how many tokens a model knows: those it can read and, where it predicts, those it can write."""
    tables = (model.get_input_embeddings(), model.get_output_embeddings())
    rows: list[int] = [
        table.weight.shape[0] for table in tables if isinstance(getattr(table, "weight", None), torch.Tensor)
    ]
    return min(rows)


def refuse_unknown_token(
    ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, *, where: str, vocabulary: int | None
) -> None:
    """Raise TaskError where a model does not know a token.

    Args:
        ids: of a text.
        tokenizer: that wrote them.
        where: what to call the text in an error.
        vocabulary: how many tokens the model knows; None where that is not at hand.
    """
    if vocabulary is not None and ids and max(ids) >= vocabulary:
        token = str(tokenizer.convert_ids_to_tokens(max(ids)))
        raise TaskError(
            f"{where}: the tokenizer writes {token!r} as token {max(ids)}, and the model knows {vocabulary}; load the tokenizer "
            "that belongs to the model, or resize the model's embeddings."
        )


def _with_counterfactuals(
    sequences: Sequence[TokenSequence],
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    score: Score,
    *,
    vocabulary: int | None,
    form: Form,
) -> list[TokenSequence]:
    swapped = []
    for example in examples:
        if example.counterfactual is None:
            raise TaskError(
                f"{place_of(example)}: it has no counterfactual; give the task file a template in counterfactual:."
            )
        swapped.append(dataclasses.replace(example, prompt=example.counterfactual))
    paired = []
    others = encode(swapped, tokenizer, score, longest=sys.maxsize, vocabulary=vocabulary, form=form)
    for sequence, other in zip(sequences, others, strict=True):
        example, other_prompt = examples[sequence.owner], swapped[sequence.owner].prompt
        for theirs, ours, included in (
            (other.first_scored, sequence.first_scored, ""),
            (len(other.ids), len(sequence.ids), ", the answer included"),
        ):
            if theirs != ours:
                raise TaskError(
                    f"{place_of(example)}: its counterfactual {quoted(other_prompt, most=40)} has {theirs} tokens and the prompt "
                    f"{ours}{included}; activations are swapped token by token, so make them of one length or drop the row."
                )
        paired.append(dataclasses.replace(sequence, counterfactual_ids=other.ids))
    return paired


def batches_of(
    sequences: Sequence[TokenSequence],
    score: Score,
    *,
    device: torch.device,
    fewest: int = 1,
    resources: Resources | None = None,
    form: Form = CAUSAL,
) -> list[Batch]:
    """Group sequences of like length into batches, shortest first.

    Args:
        sequences: from `encode`.
        score: `first_token` scores one position a sequence, all others the whole continuation.
        device: where the model wants its token ids.
        fewest: rows of a batch, however long they are; a batch has fewer only where there are no more.
        resources: how large a batch may be; what suits a CPU by default.
        form: how the model reads them.
    """
    limits = resources or CPU
    read = [form.row(sequence, score) for sequence in sequences]
    readings = _readings(sequences, read, form)
    readings.sort(key=lambda reading: (read[reading[0]].width, min(reading)))
    groups: list[list[list[int]]] = []
    scored = 0
    for reading in readings:
        length, wanted = read[reading[0]].width, sum(len(read[index].columns) for index in reading)
        too_long = groups and (len(groups[-1]) + 1) * length > limits.batch_tokens
        full = groups and (too_long or scored + wanted > limits.scored_positions)
        if not groups or (full and len(groups[-1]) >= fewest):
            groups.append([])
            scored = 0
        groups[-1].append(reading)
        scored += wanted
    if len(groups) > 1 and len(groups[-1]) < fewest:
        last = groups.pop()
        missing = fewest - len(last)
        kept = len(groups[-1]) - missing
        if kept >= fewest:
            groups[-1], last = groups[-1][:kept], groups[-1][kept:] + last
            groups.append(last)
        else:
            groups[-1] += last
    return [
        dataclasses.replace(
            batch_of(sequences, group, score, device=device, form=form), scored_positions=limits.scored_positions
        )
        for group in groups
    ]


def _readings(sequences: Sequence[TokenSequence], read: Sequence[Row], form: Form) -> list[list[int]]:
    """Return the sequences that one row reads, the longest first: continuations of one prompt, each covered by the first."""
    readings: list[list[int]] = []
    of_owner: dict[tuple[int, int], list[list[int]]] = {}
    for index in sorted(range(len(sequences)), key=lambda index: -read[index].width):
        sequence = sequences[index]
        rivals = of_owner.setdefault((sequence.owner, sequence.first_scored), [])
        for reading in rivals if sequence.counterfactual_ids is None else ():
            if form.covers(read[reading[0]], read[index]):
                reading.append(index)
                break
        else:
            reading = [index]
            rivals.append(reading)
            readings.append(reading)
    return readings


def _refuse_labels_alike(
    examples: Sequence[Example], sequences: Sequence[TokenSequence], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Raise TaskError where two labels of a row begin with the same token."""
    first_with: dict[tuple[int, int], str] = {}
    for sequence in sequences:
        example = examples[sequence.owner]
        label = continuations_of(example)[sequence.choice]
        token = sequence.ids[sequence.first_scored]
        twin = first_with.setdefault((sequence.owner, token), label)
        if twin != label:
            raise TaskError(
                f"{place_of(example)}: the choices {quoted(twin)} and {quoted(label)} begin with the same token "
                f"{tokenizer.convert_ids_to_tokens(token)!r}, and score: first_token cannot tell them apart; "
                "reword one, or use score: choice."
            )


def batch_of(
    sequences: Sequence[TokenSequence],
    readings: Sequence[Sequence[int]],
    score: Score,
    *,
    device: torch.device,
    form: Form = CAUSAL,
) -> Batch:
    """Return some sequences as one batch.

    Args:
        sequences: all of them.
        readings: for each row of the batch the indices of the sequences it reads, the longest first.
        score: says which tokens are scored.
        device: where the model wants its token ids.
        form: how the model reads them.
    """
    scored = [
        (row, column, sequences[index].ids[sequences[index].first_scored + place], index)
        for row, reading in enumerate(readings)
        for index in reading
        for place, column in enumerate(form.row(sequences[index], score).columns)
    ]
    rows, columns, targets, indices = zip(*scored, strict=True)
    read = [sequences[reading[0]] for reading in readings]
    found = [form.row(sequence, score) for sequence in read]
    swapped = [dataclasses.replace(one, ids=ids) for one in read if (ids := one.counterfactual_ids) is not None]
    others = [form.row(sequence, score).ids for sequence in swapped]
    return Batch(
        right_padded([row.ids for row in found], pad=form.pad).to(device),
        torch.tensor(rows, device=device),
        torch.tensor(columns, device=device),
        torch.tensor(targets, device=device),
        indices,
        torch.tensor([row.prompt_length for row in found], device=device),
        right_padded(others, pad=form.pad).to(device) if len(others) == len(read) else None,
        beside={name: tensor.to(device) for name, tensor in _beside(found, form).items()},
    )


def _beside(rows: Sequence[Row], form: Form) -> dict[str, Tensor]:
    """Return what a model is called with beside the ids."""
    found = {"attention_mask": _mask([row.ids for row in rows])} if form.masks_padding else {}
    if any(row.decoder_ids for row in rows):
        found["decoder_input_ids"] = right_padded([row.decoder_ids for row in rows], pad=form.pad)
    return found


def _mask(sequences: Sequence[tuple[int, ...]]) -> Tensor:
    """Return 1 where `right_padded` puts tokens and 0 where it pads, (sequences, tokens)."""
    lengths = torch.tensor([len(ids) for ids in sequences])
    return (torch.arange(int(lengths.max())) < lengths[:, None]).long()


def right_padded(sequences: Sequence[tuple[int, ...]], *, pad: int = 0) -> Tensor:
    """Return sequences of ids as one tensor, (sequences, tokens), padding after the shorter ones."""
    padded = torch.full((len(sequences), max(map(len, sequences))), pad, dtype=torch.long)
    for row, ids in enumerate(sequences):
        padded[row, : len(ids)] = torch.tensor(ids)
    return padded
