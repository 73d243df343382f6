"""The Hugging Face Trainer, with an objective of ours."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks
from transformers.trainer_callback import PrinterCallback

from strop.checkpoints import placing_hooks
from strop.errors import TrainingError, UsageError, reason_in
from strop.training.checkpoints import InterventionCheckpoints
from strop.training.keep import KeepToBase
from strop.training.objective import Objective
from strop.training.plan import Precision


class EditTrainer(InterventionCheckpoints, Trainer):  # type: ignore[misc]
    """Train whatever in a model asks for gradients on an objective.

    Args:
        model: what is trained, or PEFT's wrapper around it.
        objective: what is learned from, and what is made small.
        arguments: the Trainer's.
        callbacks: the Trainer's.
        kept: what the model is held to besides; None lets it drift.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        arguments: TrainingArguments,
        callbacks: list[TrainerCallback],
        kept: KeepToBase | None = None,
    ) -> None:
        with _as_with_adapters(model):
            super().__init__(
                model=model,
                args=arguments,
                train_dataset=objective.examples,
                data_collator=objective.collate,
                callbacks=callbacks,
            )
        if isinstance(arguments, _InPlace):
            self.accelerator.device_placement = False
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True  # the loss is divided by what is counted in the whole step
        self._objective, self._kept = objective, kept

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the mean loss of an answer token, or of a text, and what drifting from the base costs beside it.

        Where several passes make a step, each one's drift counts by its share of the answer tokens.

        Raises:
            TrainingError: it is NaN or infinite.
        """
        found = self._objective.loss(model, inputs)
        total = found.total if self._kept is None else found.total + found.count * self._kept.cost().to(found.total)
        loss = total / (found.count if num_items_in_batch is None else num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes
        if not math.isfinite(float(loss.detach())):
            epoch = math.floor(self.state.epoch or 0) + 1
            raise TrainingError(
                f"The loss became {float(loss.detach())} at step {self.state.global_step + 1} (epoch {epoch})."
            )
        return (loss, found.logits) if return_outputs else loss


@contextlib.contextmanager
def _as_with_adapters(model: Any) -> Iterator[None]:
    """Let the Trainer take a quantised base: it refuses one without adapters of PEFT, and edits of hidden states are others."""
    quantised = vars(model).pop("is_quantized", None)
    try:
        yield
    finally:
        if quantised is not None:
            model.is_quantized = quantised


class _InPlace(TrainingArguments):  # type: ignore[misc]
    """Arguments for a model whose parts stay where accelerate has placed them."""

    @property
    def place_model_on_device(self) -> bool:
        """Whether the Trainer is to move the model: it is not."""
        return False


def training_arguments(arguments: dict[str, Any], *, model: nn.Module) -> TrainingArguments:
    """Return the Trainer's arguments for a model, but for those the installed transformers does not know."""
    known = TrainingArguments.__dataclass_fields__
    is_placed = any(True for module in model.modules() for _ in placing_hooks(module))
    kind = _InPlace if is_placed else TrainingArguments
    found = kind(**{name: value for name, value in arguments.items() if name in known})
    if found.n_gpu > 1:
        found._n_gpu = 1  # several devices are for several processes: DataParallel's copies of a model have no edits
    return found


def refuse_unknown_reports(names: Sequence[str]) -> None:
    """Raise UsageError if losses cannot be reported somewhere: an unknown name, or a package that is not installed."""
    for name in sorted({*names} - {"all", "none"}):
        try:
            for report in get_reporting_integration_callbacks([name]):
                report()
        except (ValueError, RuntimeError, ImportError) as error:
            raise UsageError(f"Losses cannot be reported to {name}: {reason_in(error)}.") from None


def release(trainer: EditTrainer) -> None:
    """Let go of a training's memory."""
    trainer.model.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def computing_in(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return what the Trainer computes a loss under.

    Args:
        precision: asked for.
        device: of the model.
    """
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))
