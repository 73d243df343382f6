"""The Hugging Face Trainer, with a loss that costs only what can change."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks
from transformers.trainer_callback import PrinterCallback

from strop.anatomy import Anatomy, logits_at
from strop.errors import TrainingError, UsageError
from strop.interventions import prompt_lengths
from strop.training.checkpoints import InterventionCheckpoints
from strop.training.prefix_states import PrefixStates
from strop.training.sequences import TrainSet, collate


class EditTrainer(InterventionCheckpoints, Trainer):  # type: ignore[misc]
    """Train whatever in a model asks for gradients on answers, from the lowest edit up.

    L = −(1/N) Σ log p(y_t | x, y_<t), over all N answer tokens of a step, prompts left out
    (Wu, Arora et al., ReFT, arXiv 2404.03592, section 3.4)

    Args:
        model: what is trained, or PEFT's wrapper around it.
        inner: the transformers model itself.
        anatomy: of the inner model.
        train_set: the sequences.
        arguments: the Trainer's.
        callbacks: the Trainer's.
    """

    def __init__(
        self,
        model: nn.Module,
        inner: PreTrainedModel,
        anatomy: Anatomy,
        train_set: TrainSet,
        arguments: TrainingArguments,
        callbacks: list[TrainerCallback],
    ) -> None:
        super().__init__(
            model=model, args=arguments, train_dataset=train_set, data_collator=collate, callbacks=callbacks
        )
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True  # the loss is divided by the answer tokens of the whole step
        self._inner, self._anatomy = inner, anatomy
        self.prefix: PrefixStates | None = None
        """What lies below the lowest edit, read once; None runs the whole model."""

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the mean loss of an answer token; the LM head runs at answer tokens only.

        Raises:
            TrainingError: it is NaN or infinite.
        """
        input_ids, labels = inputs["input_ids"], inputs["labels"]
        rows, columns = (labels != -100).nonzero(as_tuple=True)
        state = self.prefix.batch(inputs["index"], input_ids.shape[1]) if self.prefix is not None else None
        with prompt_lengths(inputs["prompt_lengths"]):
            logits = logits_at(
                self._inner,
                self._anatomy,
                input_ids,
                rows,
                columns - 1,
                start=self.prefix.start if self.prefix is not None and state is not None else 0,
                state=state.to(input_ids.device) if state is not None else None,
                raw=self.prefix is not None and state is not None and self.prefix.raw,
                caller=model,
            )
        total = nn.functional.cross_entropy(logits.float(), labels[rows, columns].to(logits.device), reduction="sum")
        loss = total / (len(rows) if num_items_in_batch is None else num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes
        if not math.isfinite(float(loss.detach())):
            epoch = math.floor(self.state.epoch or 0) + 1
            raise TrainingError(
                f"The loss became {float(loss.detach())} at step {self.state.global_step + 1} (epoch {epoch})."
            )
        return (loss, logits) if return_outputs else loss


def quietest(arguments: dict[str, Any]) -> TrainingArguments:
    """Return the Trainer's arguments, but for those the installed transformers does not know."""
    known = TrainingArguments.__dataclass_fields__
    found = TrainingArguments(**{name: value for name, value in arguments.items() if name in known})
    if found.n_gpu > 1:
        found._n_gpu = 1  # several devices are for several processes: DataParallel's copies of a model have no edits
    return found


def refuse_unknown_reports(names: Sequence[str]) -> None:
    """Raise UsageError if losses cannot be reported somewhere: an unknown name, or a package that is not installed."""
    for name in names:
        try:
            for report in get_reporting_integration_callbacks([name]):
                report()
        except (ValueError, RuntimeError, ImportError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise UsageError(f"Losses cannot be reported to {name}: {reason}.") from None


def release(trainer: EditTrainer) -> None:
    """Let go of a training's memory."""
    trainer.model.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
