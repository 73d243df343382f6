"""Score a set of examples on a classifier."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Anatomy, evaluating
from strop.checkpoints import is_classifier, labels_in_own_order
from strop.errors import UsageError
from strop.progress import SILENT, Progress
from strop.scoring.evaluation import Evaluation
from strop.scoring.finite import refuse_not_finite
from strop.scoring.label_form import label_form
from strop.scoring.lengths import one_length_of, refuse_other_lengths
from strop.scoring.resources import Resources
from strop.statistics.metrics import require
from strop.tasks.examples import Example, categories_of, group_indices
from strop.tasks.labels import Labels


class ClassScorer:
    """Examples encoded once, ready to be scored on a classifier as often as its edits change.

    Args:
        model: a classifier of texts or images with an output for each label, or one for a number.
        tokenizer: its fast tokenizer, or its image processor.
        examples: to be scored, in this order.
        labels: the task's.
        anatomy: the model's, where it is at hand.

    Raises:
        TaskError: a row does not fit the model.
        UsageError: there are no examples, the model is no classifier or one of other labels, or of texts where the examples
            are images, or the metric needs scikit-learn, which is not installed.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        labels: Labels,
        *,
        anatomy: Anatomy | None = None,
    ) -> None:
        if not examples:
            raise UsageError("There are no examples to score.")
        refuse_no_classifier(model, labels, images=examples[0].image is not None)
        require(labels.metric)
        self.model = model
        self.anatomy = anatomy or Anatomy.of(model)
        self.labels = labels
        self.example_count = len(examples)
        self._examples = examples
        form = label_form(model, self.anatomy, tokenizer, examples, labels)
        encoded = form.encode(examples)
        self.actual: NDArray[np.float64] = np.array([own.target for own in encoded])
        """(examples,): the right labels' indices, or the right numbers."""
        self._groups, self._categories = group_indices(examples), categories_of(examples)
        self.batches = form.batches(encoded, limit=Resources.of(model).batch_tokens)

    @property
    def tokens(self) -> int:
        """Tokens, or patches of images, of one whole pass, padding included."""
        return sum(batch.real.numel() for batch in self.batches)

    @property
    def steps(self) -> int:
        """How often one whole pass tells its progress."""
        return len(self.batches)

    @torch.inference_mode()
    def evaluate(
        self, *, start: int = 0, states: Sequence[Tensor] | None = None, progress: Progress = SILENT
    ) -> Evaluation:
        """Score every example; the loss is −log p of the label in nats, or the squared error of the number.

        Args:
            start: 0: a classifier is always run whole.
            states: None.
            progress: told of each batch.

        Raises:
            UsageError: it is to be run from another block on.
            InterventionError: a bias on the model holds for examples of another length.
            NotFiniteError: what the model says of an example is NaN or infinite.
        """
        if start or states is not None:
            raise UsageError("A classifier is always run whole, not from a block on.")
        if one_length_of(self.model):
            refuse_other_lengths(self.model, {int(own) for batch in self.batches for own in batch.real.sum(1)})
        loss, predicted = np.zeros(self.example_count), np.zeros(self.example_count)
        with evaluating(self.model):
            for batch in self.batches:
                logits = batch.run(self.model).cpu()
                where = list(batch.members)
                bad = (~torch.isfinite(logits).all(-1)).nonzero()
                if len(bad):
                    refuse_not_finite(self.model, self._examples[where[int(bad[0, 0])]])
                loss[where] = losses(logits, batch.targets).double().numpy()
                predicted[where] = (logits.argmax(-1) if self.labels.names else logits[:, 0]).double().numpy()
                progress.advance()
        return Evaluation(
            "label",
            loss,
            np.ones(self.example_count, dtype=np.int64),
            predicted == self.actual if self.labels.names else None,
            groups=self._groups,
            categories=self._categories,
            actual=self.actual,
            predicted=predicted,
            labels=self.labels,
            said=self._in_words(predicted),
            wanted=self._in_words(self.actual),
        )

    def _in_words(self, values: NDArray[np.float64]) -> tuple[str, ...] | None:
        names = self.labels.names
        return tuple(names[int(value)] for value in values) if names else None


def losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Return −log softmax(logits)_y where the targets are labels, else (logit − y)²: (texts,).

    Args:
        logits: (texts, labels), or (texts, 1) for numbers.
        targets: (texts,), long or float.
    """
    if targets.is_floating_point():
        return functional.mse_loss(logits[:, 0], targets, reduction="none")
    return functional.cross_entropy(logits, targets, reduction="none")


def refuse_no_classifier(model: PreTrainedModel, labels: Labels, *, images: bool = False) -> None:
    """Raise UsageError if a model is no classifier, or one of another number or order of labels."""
    remedy = f"load it with strop.load_{'image_' * images}classifier(name, labels={labels.count})"
    if not is_classifier(model):
        raise UsageError(f"score: label needs a classifier, and {type(model).__name__} is none; {remedy}.")
    if model.config.num_labels != labels.count:
        raise UsageError(
            f"The task has {labels.count} {'labels' if labels.names else 'output, a number'}, and this "
            f"{type(model).__name__} has {model.config.num_labels}; {remedy}."
        )
    own = labels_in_own_order(model, labels.names)
    if own is not None:
        raise UsageError(
            f"The task's labels ({', '.join(labels.names)}) stand in another order than the outputs of this "
            f"{type(model).__name__} ({', '.join(own)}); list them in the task as the classifier has them."
        )
