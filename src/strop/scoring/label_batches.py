"""Texts and their labels as tokens: one text or a pair, in the tokenizer's own form, padded on the right."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Anatomy, WeightSite, input_device
from strop.errors import TaskError
from strop.scoring.chat_template import asked_of
from strop.scoring.encoding import refuse_unknown_token, vocabulary_of
from strop.scoring.place import place_of
from strop.scoring.tokens import adds_special_tokens, twice_first
from strop.tasks.examples import Example
from strop.tasks.labels import Labels


@dataclasses.dataclass(frozen=True)
class LabelledText:
    """A text, or a pair of texts, as tokens, with what is to be said of it."""

    ids: tuple[int, ...]
    kinds: tuple[int, ...] | None
    """Which of the two texts each token is of, where the model wants to know."""
    target: float
    """The label's index, or the number."""


@dataclasses.dataclass(frozen=True, eq=False)
class LabelBatch:
    """Texts of like length, padded on the right, or images."""

    made: Callable[[], Mapping[str, Tensor]]
    """Returns what the model is called with."""
    real: Tensor
    """(rows, tokens): which of the tokens, or of an image's patches, are not padding."""
    targets: Tensor
    """(rows,): long indices of labels, or float numbers."""
    members: tuple[int, ...]
    """For each row, the index of its text or image among all."""

    @property
    def inputs(self) -> Mapping[str, Tensor]:
        """`input_ids`, `attention_mask` and, where the model wants them, `token_type_ids`; or `pixel_values`."""
        return self.made()

    def real_at(self, site: WeightSite) -> Tensor:  # noqa: ARG002
        """Return which of the tokens a matrix sees are not padding, (rows, tokens)."""
        return self.real

    def read_by(self, model: PreTrainedModel) -> None:
        """Let a model's body read the rows, without its head."""
        model.base_model(**on_device_of(model, self.inputs))

    def run(self, model: PreTrainedModel) -> Tensor:
        """Return what a model says of each row, (rows, outputs), in float32."""
        logits: Tensor = model(**on_device_of(model, self.inputs)).logits
        return logits.float()


@dataclasses.dataclass(frozen=True, eq=False)
class TextForm:
    """How a classifier of texts takes in examples."""

    tokenizer: PreTrainedTokenizerBase
    labels: Labels
    longest: int
    """The model's context in tokens."""
    vocabulary: int
    """How many tokens the model knows."""
    pad: int
    """The model's padding token."""

    @classmethod
    def of(
        cls, model: PreTrainedModel, anatomy: Anatomy, tokenizer: PreTrainedTokenizerBase, labels: Labels
    ) -> "TextForm":
        """Return that of one model.

        Raises:
            TaskError: the model has no padding token.
        """
        longest = context_of(model, anatomy, tokenizer)
        return cls(tokenizer, labels, longest, vocabulary_of(model), pad_token_of(model))

    def encode(self, examples: Sequence[Example]) -> list[LabelledText]:
        """Turn examples into tokens.

        Raises:
            TaskError: a text does not fit the model.
        """
        return encode_labelled(examples, self.tokenizer, self.labels, longest=self.longest, vocabulary=self.vocabulary)

    def batches(self, texts: Sequence[LabelledText], *, limit: int) -> list[LabelBatch]:
        """Return all of some texts in batches of at most so many tokens, padding included."""
        return [self.batch(texts, members) for members in batches_by_length(texts, limit=limit)]

    def batch(self, texts: Sequence[LabelledText], members: Sequence[int]) -> LabelBatch:
        """Return some texts as one batch."""
        return padded(texts, members, pad=self.pad, classes=bool(self.labels.names))

    def tokens_of(self, texts: Sequence[LabelledText]) -> int:
        """Return how many tokens some texts are, padding left out."""
        return sum(len(text.ids) for text in texts)


def on_device_of(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what a model is called with where it is wanted, and pixels as numbers of the model's own kind."""
    device = input_device(model)
    return {
        name: tensor.to(device, model.dtype if tensor.is_floating_point() else None) for name, tensor in inputs.items()
    }


def encode_labelled(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    labels: Labels,
    *,
    longest: int,
    vocabulary: int | None = None,
) -> list[LabelledText]:
    """Turn examples into the tokens a classifier reads.

    A pair is written as the tokenizer writes pairs; where that puts nothing between two texts, a line break stands there.

    Args:
        examples: with the labels' names, or numbers, as answers.
        tokenizer: the model's.
        labels: the task's.
        longest: the model's context in tokens.
        vocabulary: how many tokens the model knows, where it is at hand.

    Raises:
        TaskError: a text has no token, or one the model does not know, or is longer than the context and the task does not
            say to cut it.
    """
    firsts = [asked_of(example, tokenizer).prompt for example in examples]
    seconds = [example.pair or "" for example in examples] if examples[0].pair is not None else None
    if seconds is not None and not _parted(tokenizer):
        firsts, seconds = [f"{first}\n{second}" for first, second in zip(firsts, seconds, strict=True)], None
    cut = labels.max_tokens is not None
    encoded = tokenizer(
        firsts,
        seconds,
        add_special_tokens=adds_special_tokens(examples),
        return_special_tokens_mask=True,
        truncation="longest_first" if cut else False,
        max_length=min(labels.max_tokens or longest, longest) if cut else None,
        verbose=False,
    )
    kinds = encoded["token_type_ids"] if "token_type_ids" in tokenizer.model_input_names else None
    found = []
    for index, example in enumerate(examples):
        again = twice_first(encoded["input_ids"][index], encoded["special_tokens_mask"][index])
        ids = tuple(encoded["input_ids"][index][again:])
        if not ids:
            raise TaskError(f"{place_of(example)}: the text has no token; fill its column or drop the row.")
        refuse_unknown_token(ids, tokenizer, where=place_of(example), vocabulary=vocabulary)
        if len(ids) > longest:
            raise TaskError(
                f"{place_of(example)}: {len(ids)} tokens do not fit the model's context of {longest}; shorten the row, or give "
                f"max_tokens: {longest} in the task file to cut such rows."
            )
        of_text = tuple(kinds[index][again:]) if kinds is not None else None
        found.append(LabelledText(ids, of_text, labels.target(example.answer)))
    return found


def _parted(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a tokenizer writes anything between two texts."""
    alone, together = (tokenizer.num_special_tokens_to_add(pair=pair) for pair in (False, True))
    return bool(together > alone)


def batches_by_length(texts: Sequence[LabelledText], *, limit: int) -> list[list[int]]:
    """Group texts of like length, shortest first, by index.

    Args:
        texts: all of them.
        limit: most tokens of a group, padding included.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(texts)), key=lambda index: (len(texts[index].ids), index)):
        if not groups or (len(groups[-1]) + 1) * len(texts[index].ids) > limit:
            groups.append([])
        groups[-1].append(index)
    return groups


def padded(texts: Sequence[LabelledText], members: Sequence[int], *, pad: int, classes: bool) -> LabelBatch:
    """Return some texts as one batch.

    Args:
        texts: all of them.
        members: the indices of those in the batch.
        pad: the model's padding token.
        classes: the targets are labels; else numbers.
    """
    chosen = [texts[index] for index in members]
    width = max(len(text.ids) for text in chosen)
    inputs = {
        "input_ids": _filled([text.ids for text in chosen], width, pad),
        "attention_mask": _filled([(1,) * len(text.ids) for text in chosen], width, 0),
    }
    if chosen[0].kinds is not None:
        inputs["token_type_ids"] = _filled([text.kinds or () for text in chosen], width, 0)
    targets = torch.tensor([text.target for text in chosen])
    return LabelBatch(
        lambda: inputs, inputs["attention_mask"].bool(), targets.long() if classes else targets.float(), tuple(members)
    )


def pad_token_of(model: PreTrainedModel) -> int:
    """Return the token a classifier knows as padding.

    Raises:
        TaskError: its config names none, so that it could not tell where texts of a batch end.
    """
    found = getattr(model.config.get_text_config(), "pad_token_id", None)
    if found is None:
        raise TaskError(
            f"This {type(model).__name__} has no pad_token_id in its config, and tells where texts of a batch end by it; load "
            "it with strop.load_classifier, or set model.config.pad_token_id."
        )
    return int(found)


def context_of(model: PreTrainedModel, anatomy: Anatomy, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return how many tokens a classifier and its tokenizer can do with."""
    return min(anatomy.context(model), int(min(tokenizer.model_max_length, 10**9)))


def _filled(rows: Sequence[tuple[int, ...]], width: int, filler: int) -> Tensor:
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows])
