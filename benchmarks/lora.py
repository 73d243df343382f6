"""A LoRA trained as Strop's edits are: same examples, order, loss, schedule and choice of the epoch by select."""

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

import strop
from strop.anatomy import Anatomy, Stream, StreamSite
from strop.checkpoints import identify
from strop.progress import SILENT
from strop.proving import DriftText, price_of, texts_beside_drift
from strop.runs import Price
from strop.scoring import Evaluation, Scorer
from strop.tasks import Task
from strop.training.fitter import KEPT_TEXTS
from strop.training.keep import KeepToBase
from strop.training.objective import AnswerObjective
from strop.training.prefix_states import PrefixStates
from strop.training.sequences import TrainSet
from strop.training.trainer import EditTrainer, release, training_arguments

TARGETS, RANK = ("q_proj", "v_proj"), 5


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a LoRA is trained, and how much of each split is read."""

    layers: tuple[int, ...]
    train_limit: int | None
    select_limit: int | None
    test_limit: int | None
    epochs: int
    batch_size: int
    learning_rate: float
    keep_base: float = 0.0
    """λ of KL(base ‖ edited), as Strop's edits are kept to the base."""
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a LoRA gained, and what it cost."""

    parameters: int
    select_merit: tuple[float, ...]
    """Of its best epoch; the larger one of two is better."""
    base: Evaluation
    """On test."""
    edited: Evaluation
    price: Price
    seconds: float
    """From the loaded model to the test figure, price apart."""


def train_lora(model_name: str, task: Task, settings: Settings, folder: Path) -> Trained:
    """Train a LoRA and measure the epoch that select prefers on test.

    Args:
        model_name: as `strop.load` takes it.
        task: with a train split.
        settings: how.
        folder: for what the trainer writes.
    """
    model, tokenizer = strop.load(model_name)
    started = time.monotonic()
    anatomy = Anatomy.of(model)
    select, test = (
        Scorer(model, tokenizer, task.examples(split, limit=limit), task.score, generate=task.generate, anatomy=anatomy)
        for split, limit in (("select", settings.select_limit), ("test", settings.test_limit))
    )
    base = {"select": select.evaluate(), "test": test.evaluate()}
    adapted, keep, trainer = _made_ready(model, tokenizer, task, settings, folder, anatomy, select, base["select"])
    trainer.train()
    release(trainer)
    learned = _learned(adapted)
    adapted.load_state_dict({**adapted.state_dict(), **keep.weights})
    edited = test.evaluate() if keep.weights else base["test"]
    seconds = time.monotonic() - started
    adapted.disable_adapter_layers()
    price = price_of(
        model,
        tokenizer,
        lambda: _enabled(adapted) if keep.weights else contextlib.nullcontext(),
        anatomy=anatomy,
        lowest=settings.layers[0],
        text=DriftText(),
        progress=SILENT,
    ).price
    parameters = sum(weight.numel() for weight in learned.values())
    return Trained(parameters, keep.best.figures.merit, base["test"], edited, price, seconds)


def _made_ready(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    settings: Settings,
    folder: Path,
    anatomy: Anatomy,
    select: Scorer,
    base: Evaluation,
) -> tuple[Any, "_KeepBest", EditTrainer]:
    train_set = TrainSet.of(task, tokenizer, limit=settings.train_limit, longest=model.config.max_position_embeddings)
    prefix = PrefixStates.read(
        model,
        anatomy,
        train_set.sequences,
        lowest=StreamSite(settings.layers[0], Stream.ATTENTION),
        budget_bytes=2**30,
        progress=SILENT,
    )
    kept = None
    if settings.keep_base:
        fingerprint = identify(model).fingerprint
        texts = texts_beside_drift(model, tokenizer, fingerprint=fingerprint, count=KEPT_TEXTS)
        kept = KeepToBase(model, anatomy, texts, weight=settings.keep_base, per_pass=1)
        kept.keep_below(StreamSite(settings.layers[0], Stream.ATTENTION), budget_bytes=2**30, progress=SILENT)
    torch.manual_seed(settings.seed)
    adapted = get_peft_model(
        model,
        LoraConfig(
            r=RANK,
            lora_alpha=2 * RANK,
            target_modules=list(TARGETS),
            layers_to_transform=list(settings.layers),
            task_type="CAUSAL_LM",
        ),
    )
    keep = _KeepBest(select, base)
    arguments = training_arguments(
        {
            "output_dir": str(folder / "scratch"),
            "num_train_epochs": settings.epochs,
            "per_device_train_batch_size": settings.batch_size,
            "learning_rate": settings.learning_rate,
            "warmup_steps": 0.1,
            "max_grad_norm": 1.0,
            "optim": "adamw_torch",
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            "remove_unused_columns": False,
            "label_names": ["labels"],
            "dataloader_pin_memory": False,
            "use_cpu": True,
            "seed": settings.seed,
        },
        model=adapted,
    )
    objective = AnswerObjective(model, anatomy, train_set)
    objective.prefix = prefix
    return adapted, keep, EditTrainer(adapted, objective, arguments, [keep], kept)


class _KeepBest(TrainerCallback):  # type: ignore[misc]
    """Score each epoch on select and keep the best adapter's weights."""

    def __init__(self, scorer: Scorer, base: Evaluation) -> None:
        self.scorer, self.best = scorer, base
        self.weights: dict[str, Tensor] = {}

    def on_epoch_end(self, _args: Any, state: Any, _control: Any, model: Any = None, **_: Any) -> None:
        """Score, and copy what asks for gradients if it is better."""
        found = self.scorer.evaluate()
        print(
            f"  lora, epoch {round(state.epoch)}: {found.accuracy:.4f}, loss {found.mean_loss:.4f} on select",
            flush=True,
        )
        if found.figures.merit > self.best.figures.merit:
            self.best, self.weights = found, _learned(model)


def _learned(model: torch.nn.Module) -> dict[str, Tensor]:
    """Return a copy of what asks for gradients."""
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}


@contextlib.contextmanager
def _enabled(adapted: Any) -> Any:
    adapted.enable_adapter_layers()
    try:
        yield
    finally:
        adapted.disable_adapter_layers()
