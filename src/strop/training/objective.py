"""What a training makes small: the loss of answers, or that of a classifier's labels."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Anatomy, Site, logits_at
from strop.interventions import Head, prompt_lengths
from strop.progress import Progress
from strop.scoring.class_scorer import losses, refuse_no_classifier
from strop.scoring.encoding import vocabulary_of
from strop.scoring.forms import CAUSAL, form_of
from strop.scoring.label_batches import on_device_of
from strop.scoring.label_form import LabelForm, label_form
from strop.tasks import Labels, Task
from strop.training.filled import FilledObjective
from strop.training.loss import Loss
from strop.training.plan import TrainPlan
from strop.training.prefix_states import PrefixStates, begun_by, worth_keeping
from strop.training.sequences import Item, Listed, TrainSet, collate


class Objective(Protocol):
    """What is learned from, and what is made small."""

    @property
    def examples(self) -> Dataset[Item]:
        """The train split, encoded."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens of one epoch, padding left out."""
        ...

    def collate(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Return a batch; what it calls `labels` is -100 wherever nothing is counted."""
        ...

    def loss(self, caller: Any, inputs: dict[str, Tensor]) -> Loss:
        """Return what a batch costs.

        Args:
            caller: what to call in the place of the model: a wrapper around it that adds up gradients of several processes.
            inputs: from `collate`, on the model's device.
        """
        ...

    def head_of(self, model: PreTrainedModel) -> Head | None:
        """Return the classification head training begins with, where one learns."""
        ...

    def keep_below(self, lowest: Site, plan: TrainPlan, *, progress: Progress) -> None:
        """Read once what no edit changes, where it is worth it."""
        ...

    def forget(self) -> None:
        """Give up what was kept."""
        ...


class AnswerObjective:
    """L = −(1/N) Σ log p(y_t | x, y_<t), over all N answer tokens of a step, prompts left out.

    (Wu, Arora et al., ReFT, arXiv 2404.03592, section 3.4)

    Args:
        model: a causal language model.
        anatomy: of that model.
        train_set: the sequences.
    """

    def __init__(self, model: PreTrainedModel, anatomy: Anatomy, train_set: TrainSet) -> None:
        self.model, self.anatomy, self.examples = model, anatomy, train_set
        self.prefix: PrefixStates | None = None
        """What lies below the lowest edit, read once; None runs the whole model."""

    @property
    def tokens(self) -> int:
        """Tokens of one epoch, padding left out."""
        return self.examples.tokens

    def collate(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Return a batch, padded on the right."""
        return collate(items)

    def loss(self, caller: Any, inputs: dict[str, Tensor]) -> Loss:
        """Return what the answer tokens of a batch cost; the LM head runs at these only."""
        input_ids, labels = inputs["input_ids"], inputs["labels"]
        rows, columns = (labels != -100).nonzero(as_tuple=True)
        with prompt_lengths(inputs["prompt_lengths"]):
            logits = logits_at(
                self.model,
                self.anatomy,
                input_ids,
                rows,
                columns - 1,
                **begun_by(self.prefix, inputs),
                caller=caller,
            )
        total = nn.functional.cross_entropy(logits.float(), labels[rows, columns].to(logits.device), reduction="sum")
        return Loss(total, len(rows), logits)

    def head_of(self, model: PreTrainedModel) -> Head | None:
        """Return None: the LM head stays as it is."""
        return None

    def keep_below(self, lowest: Site, plan: TrainPlan, *, progress: Progress) -> None:
        """Read the hidden states below the lowest edit once, where that saves time."""
        if plan.prefix_budget_bytes and worth_keeping(self.model, lowest=lowest, epochs=plan.epochs):
            self.prefix = PrefixStates.read(
                self.model,
                self.anatomy,
                self.examples.sequences,
                lowest=lowest,
                budget_bytes=plan.prefix_budget_bytes,
                progress=progress,
            )

    def forget(self) -> None:
        """Give up the hidden states that were kept."""
        self.prefix = None


class LabelObjective:
    """L = −(1/N) Σ log softmax(head(x))_y over the N texts, or images, of a step, or (1/N) Σ (head(x) − y)² for numbers.

    The head is trained jointly with the edits (Wu, Arora et al., ReFT, arXiv 2404.03592, section 3.4). All of the input is
    the prompt.

    Args:
        model: a classifier.
        labels: the task's.
        form: how the model takes in examples.
        encoded: what is learned from, in that form.
    """

    def __init__(self, model: PreTrainedModel, labels: Labels, form: LabelForm, encoded: Sequence[Any]) -> None:
        self.model, self.labels, self.examples = model, labels, Listed(encoded, name="example")
        self._form = form

    @property
    def tokens(self) -> int:
        """Tokens of one epoch, padding left out."""
        return self._form.tokens_of(self.examples.values)

    def collate(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Return a batch, texts padded on the right."""
        encoded = [item["example"] for item in items]
        batch = self._form.batch(encoded, range(len(encoded)))
        return {**batch.inputs, "labels": batch.targets}

    def loss(self, caller: Any, inputs: dict[str, Tensor]) -> Loss:
        """Return what the examples of a batch cost."""
        targets = inputs["labels"]
        read = {name: tensor for name, tensor in inputs.items() if name != "labels"}
        logits = caller(**on_device_of(self.model, read)).logits
        return Loss(losses(logits.float(), targets.to(logits.device)).sum(), len(targets), logits)

    def head_of(self, model: PreTrainedModel) -> Head | None:
        """Return the model's own head."""
        return Head.of(model, self.labels.names)

    def keep_below(self, lowest: Site, plan: TrainPlan, *, progress: Progress) -> None:
        """Do nothing: a classifier is always run whole."""

    def forget(self) -> None:
        """Do nothing."""


def objective_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    *,
    limit: int | None,
    anatomy: Anatomy,
) -> AnswerObjective | FilledObjective | LabelObjective:
    """Return what a task's train split teaches a model.

    Args:
        model: a causal language model, an encoder that fills masks, an encoder-decoder, or a classifier where the task has
            labels.
        tokenizer: its fast tokenizer, or its image processor.
        task: with a train split.
        limit: most examples.
        anatomy: of that model.

    Raises:
        TaskError: there is no train split, or a row does not fit.
        UsageError: the model is not of the kind the task is for.
    """
    if task.labels is None:
        context, vocabulary = anatomy.context(model), vocabulary_of(model)
        form = form_of(model, anatomy, tokenizer, task.score)
        if form is not CAUSAL:
            examples = task.examples("train", limit=limit)
            return FilledObjective.of(model, anatomy, examples, tokenizer, task.score, form=form)
        train_set = TrainSet.of(task, tokenizer, limit=limit, longest=context, vocabulary=vocabulary)
        return AnswerObjective(model, anatomy, train_set)
    refuse_no_classifier(model, task.labels, images=task.shows_images)
    examples = task.examples("train", limit=limit)
    of_labels = label_form(model, anatomy, tokenizer, examples, task.labels)
    return LabelObjective(model, task.labels, of_labels, of_labels.encode(examples))
