"""Score a set of examples on a model, whole or from a block on."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Anatomy, evaluating, hidden_states_entering, input_device, logits_at
from strop.errors import InterventionError, UsageError
from strop.progress import SILENT, Progress
from strop.scoring.encoding import Batch, batches_of, encode, vocabulary_of
from strop.scoring.evaluation import Evaluation
from strop.scoring.finite import refuse_not_finite
from strop.scoring.forms import CAUSAL, PairedForm, form_of
from strop.scoring.generation import Generator
from strop.scoring.lengths import one_length_of, refuse_other_lengths
from strop.scoring.resources import Resources
from strop.scoring.said import Said
from strop.scoring.seams import seams_of, tell, tokens_before_answers
from strop.scoring.shared_prefix import SharedPrefix
from strop.tasks.examples import Example, categories_of, group_indices
from strop.tasks.task_file import GenerateSettings, Score

PositionScores = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]


class Scorer:
    """Examples encoded once, ready to be scored on a model as often as its weights change.

    Args:
        model: a causal language model, an encoder that fills masks, or an encoder-decoder.
        tokenizer: its fast tokenizer.
        examples: to be scored, in this order.
        score: the task's.
        generate: the task's settings of `score: generate`; None takes their defaults.
        anatomy: the model's, where it is at hand.
        counterfactuals: encode each example's counterfactual prompt too.
        fewest: rows of a batch, however long they are.
        share_prefix: read what all sequences begin with once, where the model allows it; only for a model that nothing is
            attached to.

    Raises:
        TaskError: a row does not fit the model.
        UsageError: there are no examples, or the model says nothing that can be scored so.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        score: Score,
        *,
        generate: GenerateSettings | None = None,
        anatomy: Anatomy | None = None,
        counterfactuals: bool = False,
        fewest: int = 1,
        share_prefix: bool = False,
    ) -> None:
        if not examples:
            raise UsageError("There are no examples to score.")
        self.model = model
        self.anatomy = anatomy or Anatomy.of(model)
        self._form = form_of(model, self.anatomy, tokenizer, score)
        self.score: Score = score
        self.example_count = len(examples)
        longest = self.anatomy.context(model)
        self._examples = examples
        self._sequences = encode(
            examples,
            tokenizer,
            score,
            longest=longest,
            vocabulary=vocabulary_of(model),
            counterfactuals=counterfactuals,
            form=self._form,
        )
        if score != "perplexity" and not isinstance(self._form, PairedForm):  # else nothing is parted
            tell(seams_of(examples, tokens_before_answers(self._sequences), tokenizer))
        resources, read = Resources.of(model), self._sequences
        self._prefix = SharedPrefix.of(model, read) if share_prefix and self._form is CAUSAL else None
        if self._prefix is not None:
            read = self._prefix.rest_of(read)
            resources = self._prefix.within(resources, longest=max(len(sequence.ids) for sequence in read))
        self.batches = batches_of(
            read, score, device=input_device(model), fewest=fewest, resources=resources, form=self._form
        )
        self._generator = (
            Generator(model, tokenizer, examples, generate or GenerateSettings(), longest=longest, form=self._form)
            if score == "generate"
            else None
        )
        self._groups, self._categories = group_indices(examples), categories_of(examples)
        self._answers = [
            example.choices.index(example.answer) if score == "choice" and example.choices else 0
            for example in examples
        ]
        self._said = Said(examples, tokenizer)

    @property
    def tokens(self) -> int:
        """Tokens of one whole pass, padding included, and all that could be generated."""
        read = sum(batch.input_ids.numel() for batch in self.batches)
        read += self._prefix.length if self._prefix is not None else 0
        return read + (self._generator.tokens if self._generator is not None else 0)

    @property
    def tokens_per_request(self) -> float:
        """Mean length of a prompt."""
        if self._generator is not None:
            return self._generator.prompt_tokens / self.example_count
        return sum(map(len, tokens_before_answers(self._sequences))) / self.example_count

    @property
    def steps(self) -> int:
        """How often one whole pass tells its progress: once a batch, and once a batch that generates."""
        return len(self.batches) + (len(self._generator.batches) if self._generator is not None else 0)

    @property
    def state_bytes(self) -> int:
        """Size of the hidden states one call of `states_entering` returns."""
        return sum(self.state_bytes_of(batch) for batch in self.batches)

    def state_bytes_of(self, batch: Batch) -> int:
        """Size of the hidden states of one batch at one layer."""
        return int(batch.input_ids.numel() * self.anatomy.hidden_size * self.model.dtype.itemsize)

    @torch.inference_mode()
    def states_entering(self, layer: int, *, start: int = 0, states: list[Tensor] | None = None) -> list[Tensor]:
        """Return for each batch the hidden states that enter block `layer`, going on from `states`.

        Args:
            layer: the block to stop before.
            start: the block `states` enter.
            states: what an earlier call returned, used up: each entry gives way to its successor, so that one hidden
                state per token is held and not two; None starts from the embeddings.
        """
        entering: list[Tensor] = [] if states is None else states
        with evaluating(self.model):
            for index, batch in enumerate(self.batches):
                state = states[index] if states is not None else None
                with batch.with_prompts_known():
                    reached = hidden_states_entering(
                        self.model,
                        self.anatomy,
                        batch.input_ids,
                        layer=layer,
                        start=start,
                        state=state,
                        beside=batch.beside,
                    )
                if states is None:
                    entering.append(reached)
                else:
                    states[index] = reached
        return entering

    @torch.inference_mode()
    def evaluate(
        self, *, start: int = 0, states: Sequence[Tensor] | None = None, progress: Progress = SILENT
    ) -> Evaluation:
        """Score every example, running only blocks `start` and above; what generates runs the whole model.

        Args:
            start: the block `states` enter; 0 runs the whole model.
            states: from `states_entering`; needed where `start` is above 0.
            progress: told of each batch.

        Raises:
            InterventionError: a bias on the model holds for sequences of another length.
            NotFiniteError: a probability of the model's is NaN or 0.
        """
        self._refuse_other_lengths()
        log_probability = np.zeros(len(self._sequences))
        all_first = np.ones(len(self._sequences), dtype=bool)
        counted = np.zeros(len(self._sequences), dtype=np.int64)
        rank = np.zeros(len(self._sequences), dtype=np.int64)
        token = np.zeros((2, len(self._sequences)), dtype=np.int64)
        with evaluating(self.model):
            for index, batch in enumerate(self.batches):
                state = states[index] if states is not None else None
                with batch.with_prompts_known():
                    own, likeliest, likelier = self._score(batch, start, state)
                self._refuse_not_finite(batch, own)
                where, targets = np.asarray(batch.sequences), batch.targets.cpu().numpy()
                firsts = np.flatnonzero(np.diff(where, prepend=-1))
                token[:, where[firsts]] = likeliest[firsts], targets[firsts]
                np.add.at(log_probability, where, own)
                np.add.at(counted, where, 1)
                np.logical_and.at(all_first, where, likeliest == targets)
                rank[where] = likelier
                progress.advance()
        found = self._gather(log_probability, all_first, counted, rank, token)
        if self._generator is None:
            return found
        written = self._generator.generate(progress=progress)
        return dataclasses.replace(
            found,
            correct=written.correct,
            generated=written.texts,
            extracted=written.extracted,
            said=written.said,
            wanted=written.wanted,
        )

    def _refuse_not_finite(self, batch: Batch, own: NDArray[np.float64]) -> None:
        bad = np.flatnonzero(~np.isfinite(own))
        if len(bad):
            refuse_not_finite(self.model, self._examples[self._sequences[batch.sequences[bad[0]]].owner])

    def _refuse_other_lengths(self) -> None:
        """Raise InterventionError where padding would hide from a bias by position that a sequence is shorter."""
        wanted = one_length_of(self.model)
        if not wanted:
            return
        if self._generator is not None:
            raise InterventionError(
                f"A bias on this model holds for sequences of {max(wanted)} tokens, and generating runs through many "
                "lengths; prune with --bias mean for one that holds for any length."
            )
        refuse_other_lengths(
            self.model, {len(self._form.row(sequence, self.score).ids) for sequence in self._sequences}
        )

    def _score(self, batch: Batch, start: int, state: Tensor | None) -> PositionScores:
        """Return for each scored position its target's log p, the arg max, and how many tokens are likelier."""
        parts = batch.slices()
        if len(parts) > 1 and self._prefix is None and self.anatomy.family.resumes:  # a row too long for its logits
            top = self.anatomy.layer_count
            state = hidden_states_entering(
                self.model, self.anatomy, batch.input_ids, layer=top, start=start, state=state, beside=batch.beside
            )
            start = top
        scores = [
            _score_positions(
                logits_at(
                    self.model,
                    self.anatomy,
                    batch.input_ids,
                    batch.rows[part],
                    batch.columns[part],
                    start=start,
                    state=state,
                    caller=self._prefix.caller(self.model) if self._prefix is not None else None,
                    beside=batch.beside,
                ),
                batch.targets[part],
                ranks=self.score == "first_token",
            )
            for part in parts
        ]
        own, likeliest, likelier = (np.concatenate(of_parts) for of_parts in zip(*scores, strict=True))
        return own, likeliest, likelier

    def _gather(
        self,
        log_probability: NDArray[np.float64],
        all_first: NDArray[np.bool_],
        counted: NDArray[np.int64],
        rank: NDArray[np.int64],
        token: NDArray[np.int64],
    ) -> Evaluation:
        belonging: dict[str, Any] = {"groups": self._groups, "categories": self._categories}
        owner = np.array([sequence.owner for sequence in self._sequences])
        if self.score == "choice":
            first_of = np.searchsorted(owner, np.arange(self.example_count))
            right = first_of + np.array(self._answers)
            of_each = np.split(log_probability, first_of[1:])
            best = [first + int(own.argmax()) for first, own in zip(first_of, of_each, strict=True)]
            loss, tokens, correct = -log_probability[right] / counted[right], counted[right], np.array(best) == right
            said, wanted = self._said.choices(np.array(best) - first_of), self._said.choices(np.array(self._answers))
            return Evaluation("choice", loss, tokens, correct, said=said, wanted=wanted, **belonging)
        loss = -log_probability / counted
        if self.score == "perplexity":
            return Evaluation("perplexity", loss, counted, **belonging)
        ranks = rank if self.score == "first_token" else None
        said, wanted = (self._said.tokens(own) for own in token)
        return Evaluation(self.score, loss, counted, all_first, ranks, said=said, wanted=wanted, **belonging)


def _score_positions(logits: Tensor, targets: Tensor, *, ranks: bool) -> PositionScores:
    targets = targets.to(logits.device)
    logits = logits.float()
    own = logits.gather(-1, targets[:, None])[:, 0]
    log_probability = own.cpu().double() - logits.logsumexp(-1).cpu().double()
    likeliest = logits.argmax(-1)
    likelier = (logits > own[:, None]).sum(-1) if ranks else torch.zeros_like(targets)
    return log_probability.numpy(), likeliest.cpu().numpy(), likelier.cpu().numpy()
