"""LoReFT, DiReFT and a LoRA of as many parameters at the same layers, on the same examples: who gains what, held out.

Every method learns from the same train examples in the same order, for as many epochs, and the select split chooses its
epoch. Runs that are finished already are read back. The commonsense task reads its rows from the hub, or from a folder
named by --data.
"""

import argparse
import copy
import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import TrainerCallback

import strop
from common import RESULTS, write_result
from strop.anatomy import Anatomy, Stream, StreamSite
from strop.files import write_json
from strop.interventions import Positions
from strop.progress import SILENT
from strop.scoring import Evaluation, Scorer
from strop.tasks import Task
from strop.training.objective import AnswerObjective
from strop.training.prefix_states import PrefixStates
from strop.training.sequences import TrainSet
from strop.training.trainer import EditTrainer, release, training_arguments

MODEL = "smollm2-135m"
LAYERS = tuple(range(15, 30))
LORA_TARGETS, LORA_RANK = ("q_proj", "v_proj"), 5


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a task's methods are all trained.

    Learning rates are the better of 0.002 and 0.006 on select after a short training; arc-easy was not tried.
    """

    train: int | None
    select: int
    test: int | None
    epochs: int
    batch: int
    rates: dict[str, float]


SETTINGS = {
    "world-facts": Setting(None, 400, None, 3, 16, {"loreft": 2e-3, "direft": 2e-3, "lora": 6e-3}),
    "int-sum": Setting(3000, 400, None, 3, 16, {"loreft": 6e-3, "direft": 6e-3, "lora": 6e-3}),
    "arc-easy": Setting(1000, 100, 300, 2, 16, {"loreft": 2e-3, "direft": 2e-3, "lora": 2e-3}),
}


def reft(method: str, task: Task, setting: Setting, folder: Path) -> dict[str, Any]:
    """Run one training as the command line would."""
    model, tokenizer = strop.load(MODEL)
    plan = strop.TrainPlan(
        method=method,
        layers=LAYERS,
        rank=8,
        positions=Positions.parse("f7+l7"),
        epochs=setting.epochs,
        batch_size=setting.batch,
        accumulate=1,
        learning_rate=setting.rates[method],
        train_limit=setting.train,
        select_limit=setting.select,
        test_limit=setting.test,
    )
    result = strop.train(
        model, tokenizer, task, plan, options=strop.RunOptions(out=folder / f"{task.name}-{method}", resume=True)
    ).result
    return {
        "parameters": sum(entry["parameters"] for entry in result.interventions),
        "learning_rate": setting.rates[method],
        "seconds": result.cost.wall_seconds,
        "base": result.base["test"].to_json(),
        "edited": result.edited["test"].to_json(),
        "select": [result.base["select"].accuracy, result.edited["select"].accuracy],
        "comparison": result.comparison["test"].to_json(),
    }


class KeepBest(TrainerCallback):  # type: ignore[misc]
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
            self.best, self.weights = found, learned(model)


def learned(model: torch.nn.Module) -> dict[str, Tensor]:
    """Return a copy of what asks for gradients."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def lora(task: Task, setting: Setting, folder: Path) -> dict[str, Any]:
    """Train a LoRA with the same loss, order, schedule and choice of the epoch."""
    kept = folder / f"{task.name}-lora.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    started = time.monotonic()
    model, tokenizer = strop.load(MODEL)
    anatomy = Anatomy.of(model)
    select, test = (
        Scorer(model, tokenizer, task.examples(split, limit=limit), task.score, generate=task.generate, anatomy=anatomy)
        for split, limit in (("select", setting.select), ("test", setting.test))
    )
    train_set = TrainSet.of(task, tokenizer, limit=setting.train, longest=model.config.max_position_embeddings)
    base = {"select": select.evaluate(), "test": test.evaluate()}
    prefix = PrefixStates.read(
        model,
        anatomy,
        train_set.sequences,
        lowest=StreamSite(LAYERS[0], Stream.ATTENTION),
        budget_bytes=2**30,
        progress=SILENT,
    )
    torch.manual_seed(0)
    adapted = get_peft_model(
        model,
        LoraConfig(
            r=LORA_RANK,
            lora_alpha=2 * LORA_RANK,
            target_modules=list(LORA_TARGETS),
            layers_to_transform=list(LAYERS),
            task_type="CAUSAL_LM",
        ),
    )
    keep = KeepBest(select, base["select"])
    arguments = training_arguments(
        {
            "output_dir": str(folder / "scratch"),
            "num_train_epochs": setting.epochs,
            "per_device_train_batch_size": setting.batch,
            "learning_rate": setting.rates["lora"],
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
            "seed": 0,
        }
    )
    objective = AnswerObjective(model, anatomy, train_set)
    objective.prefix = prefix
    trainer = EditTrainer(adapted, objective, arguments, [keep])
    trainer.train()
    release(trainer)
    adapted.load_state_dict({**adapted.state_dict(), **keep.weights})
    edited = test.evaluate() if keep.weights else copy.copy(base["test"])
    figures = {
        "parameters": sum(p.numel() for p in learned(adapted).values()),
        "learning_rate": setting.rates["lora"],
        "seconds": time.monotonic() - started,
        "base": base["test"].figures.to_json(),
        "edited": edited.figures.to_json(),
        "select": [base["select"].accuracy, keep.best.accuracy],
        "comparison": strop.compare(base["test"], edited).to_json(),
    }
    write_json(kept, figures)
    return figures


def main(folder: Path, names: list[str]) -> None:
    """Run what is not finished yet, and write down all that is."""
    folder.mkdir(parents=True, exist_ok=True)
    written = RESULTS / "reft_methods.json"
    tasks = json.loads(written.read_text(encoding="utf-8"))["tasks"] if written.is_file() else {}
    for name in names:
        task, setting = strop.load_task(name), SETTINGS[name]
        tasks[name] = {}
        for method in ("loreft", "direft", "lora"):
            found = lora(task, setting, folder) if method == "lora" else reft(method, task, setting, folder)
            tasks[name][method] = found
            print(f"{name}, {method}: {found['base']['accuracy']:.4f} -> {found['edited']['accuracy']:.4f}", flush=True)
        tasks[name]["settings"] = {
            **{field: value for field, value in dataclasses.asdict(setting).items() if field != "rates"},
            "layers": [LAYERS[0], LAYERS[-1]],
            "lora": {"targets": list(LORA_TARGETS), "rank": LORA_RANK},
        }
        write_result("reft_methods", {"model": MODEL, "threads": torch.get_num_threads(), "tasks": tasks})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=["world-facts", "int-sum"], help=", ".join(SETTINGS))
    parser.add_argument("--runs", type=Path, default=Path("runs/reft"), help="folder the runs are kept in")
    parser.add_argument("--data", type=Path, help="folder that holds the rows of arc-easy (STROP_DATA)")
    asked = parser.parse_args()
    if asked.data is not None:
        os.environ["STROP_DATA"] = str(asked.data.absolute())
    main(asked.runs, asked.tasks)
