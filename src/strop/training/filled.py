"""The loss of answers that do not stand behind their prompts: at masks, or in a decoder."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Anatomy, Site, logits_at
from strop.interventions import Head, prompt_lengths
from strop.progress import Progress
from strop.scoring.encoding import batch_of, encode, vocabulary_of
from strop.scoring.forms import Form, TokenSequence
from strop.tasks import Example
from strop.tasks.task_file import Score
from strop.training.loss import Loss
from strop.training.plan import TrainPlan
from strop.training.sequences import Item, Listed


class FilledObjective:
    """L = −(1/N) Σ log p(y_t | x) over all N answer tokens of a step, each at its own mask; in a decoder, p(y_t | x, y_<t).

    The model is always run whole.

    Args:
        model: an encoder that fills masks, or an encoder-decoder.
        anatomy: of that model.
        sequences: what is learned from.
        score: `first_token` learns the first token of an answer only.
        form: how the model reads them.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        anatomy: Anatomy,
        sequences: Sequence[TokenSequence],
        score: Score,
        *,
        form: Form,
    ) -> None:
        self.model, self.anatomy, self.examples = model, anatomy, Listed(sequences, name="sequence")
        self._score, self._form = score, form

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        anatomy: Anatomy,
        examples: Sequence[Example],
        tokenizer: PreTrainedTokenizerBase,
        score: Score,
        *,
        form: Form,
    ) -> "FilledObjective":
        """Encode examples as they are encoded where they are scored; of several choices the right one is learned.

        Args:
            model: an encoder that fills masks, or an encoder-decoder.
            anatomy: of that model.
            examples: at least one.
            tokenizer: the model's.
            score: the task's.
            form: how the model reads them.

        Raises:
            TaskError: a row does not fit.
        """
        ends = score == "generate" and tokenizer.eos_token_id is not None  # so that the model stops
        score = "exact" if score in ("choice", "generate") else score
        longest, vocabulary = anatomy.context(model), vocabulary_of(model)
        found = encode(examples, tokenizer, score, longest=longest, vocabulary=vocabulary, form=form)
        if ends:
            end = (tokenizer.eos_token_id,)
            found = [dataclasses.replace(sequence, ids=sequence.ids + end) for sequence in found]
        return cls(model, anatomy, found, score, form=form)

    @property
    def tokens(self) -> int:
        """Tokens of one epoch, padding left out."""
        return sum(self._form.row(sequence, self._score).width for sequence in self.examples.values)

    def collate(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Return a batch, padded on the right; `labels` are −100 wherever nothing is to be said."""
        sequences = [item["sequence"] for item in items]
        rows = [[index] for index in range(len(sequences))]
        batch = batch_of(sequences, rows, self._score, device=torch.device("cpu"), form=self._form)
        labels = torch.full_like(batch.beside.get("decoder_input_ids", batch.input_ids), -100)
        labels[batch.rows, batch.columns] = batch.targets
        return {
            "input_ids": batch.input_ids,
            "labels": labels,
            "prompt_lengths": batch.prompt_lengths,
            **batch.beside,
        }

    def loss(self, caller: Any, inputs: dict[str, Tensor]) -> Loss:
        """Return what the answer tokens of a batch cost; the LM head runs at these only."""
        labels = inputs["labels"]
        rows, columns = (labels != -100).nonzero(as_tuple=True)
        own = ("input_ids", "labels", "prompt_lengths")
        with prompt_lengths(inputs["prompt_lengths"]):
            logits = logits_at(
                self.model,
                self.anatomy,
                inputs["input_ids"],
                rows,
                columns,
                beside={name: tensor for name, tensor in inputs.items() if name not in own},
                caller=caller,
            )
        total = nn.functional.cross_entropy(logits.float(), labels[rows, columns].to(logits.device), reduction="sum")
        return Loss(total, len(rows), logits)

    def head_of(self, model: PreTrainedModel) -> Head | None:
        """Return None: the LM head stays as it is."""
        return None

    def keep_below(self, lowest: Site, plan: TrainPlan, *, progress: Progress) -> None:
        """Do nothing: the model is always run whole."""

    def forget(self) -> None:
        """Do nothing."""
