"""A planted task that a tiny model can learn, and runs of it that are stopped on the way."""

import copy
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.interventions import Positions
from strop.proving import RunOptions, RunOutcome
from strop.tasks import Task, load_task
from strop.training import TrainPlan, train
from strop.training.trainer import EditTrainer
from strop.training.watch import Watch

QUICK = TrainPlan(
    rank=4,
    layers=(1, 2),
    positions=Positions(1, 1),
    epochs=4,
    batch_size=4,
    accumulate=1,
    learning_rate=0.02,
    init="paper",
    keep_base=0,
)
STEPS_OF_EPOCH = 12
"""Of a plan that sees four examples a step."""


@pytest.fixture
def plan() -> TrainPlan:
    """A plan of 48 steps in four epochs."""
    return QUICK


def planted_rows() -> list[dict[str, str]]:
    return [
        {"prompt": f"{number:02d} {'in ' * (number % 4)}{key}", "answer": answer}
        for number in range(24)
        for key, answer in zip("abcd", "RSTU", strict=True)
    ]


def write_planted(
    folder: Path, *, score: str = "exact", splits: str = "{train: 0.5, select: 0.2, test: 0.3, seed: 0}"
) -> Path:
    """Write a task whose answer depends on the prompt's last letter alone: 96 rows, 48 of them to learn from."""
    rows = planted_rows()
    (folder / "planted.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    path = folder / f"{score}.yaml"
    path.write_text(f"name: planted\ndata: planted.jsonl\nscore: {score}\nsplits: {splits}\n", encoding="utf-8")
    return path


@pytest.fixture
def planted(tmp_path: Path) -> Task:
    """Its answer depends on the prompt's last letter alone; 48 rows to learn from."""
    return load_task(write_planted(tmp_path))


@dataclasses.dataclass
class Seen:
    """What a training did, step by step."""

    losses: list[tuple[int, float]] = dataclasses.field(default_factory=list)
    """(steps done before, loss of a pass), to the last bit."""
    worst_frame: float = 0.0
    """How far a basis was from orthonormal rows, at worst, after any step."""
    epochs: list[int] = dataclasses.field(default_factory=list)
    """Those that were scored."""


@pytest.fixture
def seen() -> Iterator[Seen]:
    """Watch every training of a test."""
    found = Seen()
    compute, on_step_end, score = EditTrainer.compute_loss, Watch.on_step_end, Watch._score

    def computing(self: EditTrainer, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        loss = compute(self, model, inputs, *rest, **named)
        found.losses.append((self.state.global_step, loss.item()))
        return loss

    def ending(self: Watch, args: Any, state: Any, control: Any, **rest: Any) -> None:
        on_step_end(self, args, state, control, **rest)
        for edit in self._attachment.edits:
            if edit.edit.formula.orthonormal:
                rows = edit.basis_rows().detach()
                found.worst_frame = max(found.worst_frame, float((rows @ rows.T - torch.eye(len(rows))).abs().max()))

    def scoring(self: Watch, epoch: int) -> bool:
        found.epochs.append(epoch)
        return score(self, epoch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EditTrainer, "compute_loss", computing)
        patch.setattr(Watch, "on_step_end", ending)
        patch.setattr(Watch, "_score", scoring)
        yield found


@pytest.fixture
def stopped_after(seen: Seen) -> Iterator[Callable[[int], None]]:
    """Ask the next training to stop after so many of its steps, as Ctrl-C does.

    What is put in place of a method is put back in the reverse order: ``seen`` comes first, whatever a test names first.
    """
    with pytest.MonkeyPatch.context() as patch:

        def arm(steps: int) -> None:
            real, done = Watch.on_step_end, []

            def ending(self: Watch, *positional: Any, **named: Any) -> None:
                done.append(1)
                self.interrupted = self.interrupted or len(done) == steps
                real(self, *positional, **named)

            patch.setattr(Watch, "on_step_end", ending)

        yield arm


@pytest.fixture
def training(tiny: Callable[..., Any], small_tokenizer: Any, planted: Task) -> Callable[..., RunOutcome]:
    """Train a tiny model on the planted task."""

    def run(
        plan: TrainPlan = QUICK, *, family: str = "llama", model: Any = None, task: Task = planted, **options: Any
    ) -> RunOutcome:
        used = model if model is not None else tiny(family)
        return train(used, small_tokenizer, task, plan, RunOptions(**options))

    return run


@dataclasses.dataclass(frozen=True)
class Whole:
    """An uninterrupted training of a tiny Llama on the planted task, and what was seen of it."""

    outcome: RunOutcome
    losses: tuple[tuple[int, float], ...]


@pytest.fixture(scope="session")
def whole_trainings() -> dict[TrainPlan, Whole]:
    """Those done so far."""
    return {}


@pytest.fixture
def whole(
    training: Callable[..., RunOutcome], seen: Seen, whole_trainings: dict[TrainPlan, Whole]
) -> Callable[[TrainPlan], Whole]:
    """Train by a plan without an interruption, once for all tests: the same settings learn the same to the last bit."""

    def find(plan: TrainPlan) -> Whole:
        if plan not in whole_trainings:
            before = dataclasses.replace(seen)
            seen.losses, seen.epochs = [], []
            whole_trainings[plan] = Whole(training(plan), tuple(seen.losses))
            seen.losses, seen.epochs, seen.worst_frame = before.losses, before.epochs, before.worst_frame
        return whole_trainings[plan]

    return find


@pytest.fixture(scope="session")
def knowing(tiny: Callable[..., Any], small_tokenizer: Any) -> Callable[[], Any]:
    """A maker of tiny models that know the planted task already."""
    model = tiny("llama")
    rows = planted_rows()
    encoded = [torch.tensor([small_tokenizer(row["prompt"] + row["answer"])["input_ids"]]) for row in rows]
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(100):
            loss = sum(
                torch.nn.functional.cross_entropy(model(encoded[which][:, :-1]).logits[:, -1], encoded[which][:, -1])
                for which in torch.randperm(len(encoded))[:4].tolist()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.zero_grad()
    return lambda: copy.deepcopy(model)


@pytest.fixture
def figures() -> Callable[[RunOutcome], dict[str, Any]]:
    """What result.json holds but for what the clock and the memory say."""

    def read(found: RunOutcome) -> dict[str, Any]:
        content = json.loads(json.dumps(found.result.to_json()))
        content["cost"] = {key: value for key, value in content["cost"].items() if key in ("evaluations", "tokens")}
        return content

    return read


@pytest.fixture
def bits() -> Callable[[Any], dict[str, bytes]]:
    """Every parameter and buffer of a model, byte for byte."""
    return lambda model: {
        name: tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()
        for name, tensor in model.state_dict().items()
    }


@pytest.fixture(scope="session")
def write_task() -> Callable[..., Path]:
    """Write the planted task into a folder."""
    return write_planted


@pytest.fixture
def written_task(tmp_path: Path) -> Callable[..., Path]:
    """Write the planted task under another score, or with other splits."""
    return lambda **changes: write_planted(tmp_path, **changes)
