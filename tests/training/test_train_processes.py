"""Two processes that torchrun starts learn what one learns from batches of twice the size; only the first writes."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.recipe import Recipe
from strop.runs.processes import of_all_processes, process_index
from strop.training import TrainPlan
from strop.training.checkpoints import checkpoints_in

CODE = """
import json, os, pickle, sys
tests, tokenizer, task, out, changes, stop = json.loads(sys.argv[1])
sys.path.insert(0, tests)
import torch
torch.set_num_threads(1)
from conftest import make_tiny
from transformers import AutoTokenizer
from strop.tasks import load_task
from strop.training import TrainPlan, train
from strop.interventions import Positions
from strop.training.watch import Watch

rank = int(os.environ["RANK"])
real = Watch.on_step_end

def ending(self, args, state, control, **rest):
    if rank == 1 and state.global_step == stop:
        self.interrupted = True  # only one of them was told
    real(self, args, state, control, **rest)

Watch.on_step_end = ending
plan = TrainPlan(**{**dict(rank=4, layers=(1, 2), positions=Positions(1, 1), epochs=4, batch_size=2, accumulate=1,
    learning_rate=0.02, init="paper"), **changes})
try:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    found = train(make_tiny("llama"), tokenizer, load_task(task), plan, out=out, resume=out is not None)
except KeyboardInterrupt:
    sys.exit(0 if stop else 9)
with open(f"{os.path.dirname(task)}/found-{rank}.pickle", "wb") as file:
    pickle.dump((found.recipe.tensors, found.result.to_json(), found.folder, len(found.trials)), file)
"""


@pytest.fixture
def two_processes(tmp_path: Path, tiny_folder: Path, written_task: Any) -> Callable[..., str]:
    """Train in two processes; return what they wrote to their errors."""

    def run(out: Path | None, *, stop: int = 0, **changes: Any) -> str:
        (tmp_path / "train.py").write_text(CODE)
        given = (str(Path(__file__).parents[1]), str(tiny_folder), str(written_task()), out and str(out), changes, stop)
        call = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--standalone"]
        finished = subprocess.run(
            [sys.executable, *call, str(tmp_path / "train.py"), json.dumps(given)],
            capture_output=True,
            text=True,
            timeout=150,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stderr

    return run


def found_by(folder: Path, process: int) -> Any:
    return pickle.loads((folder / f"found-{process}.pickle").read_bytes())


def test_two_processes_learn_what_one_does_and_the_first_writes(
    training: Any, two_processes: Any, plan: TrainPlan, tmp_path: Path, figures: Any
) -> None:
    alone = training(plan)
    said = two_processes(tmp_path / "run")
    first, second = (found_by(tmp_path, process) for process in (0, 1))
    assert first[1:] == second[1:]
    recipe = Recipe.load(tmp_path / "run" / "recipe")
    for of_run, mine, theirs, expected in zip(recipe.tensors, first[0], second[0], alone.recipe.tensors, strict=True):
        for name in expected:
            assert torch.equal(mine[name], theirs[name])
            assert torch.equal(mine[name], of_run[name])
            torch.testing.assert_close(mine[name], expected[name], rtol=1e-2, atol=2e-3)
    assert first[1]["edited"]["select"]["loss"] == pytest.approx(alone.result.edited["select"]["loss"], rel=1e-3)
    assert first[3] == 5
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("started") == log.count("finished") == log.count("epoch 3:") == 1
    assert {path.name for path in checkpoints_in(tmp_path / "run" / "checkpoints")[0].glob("randomness*")} == {
        *("randomness-0.json", "randomness-1.json")
    }
    assert "Warning" not in said
    assert "Traceback" not in said


def test_two_processes_stop_at_one_step_and_go_on_to_the_last_bit(
    two_processes: Any, tmp_path: Path, figures: Any
) -> None:
    """And a run that is finished is read back by both."""
    two_processes(None, dropout=0.2, epochs=2)
    expected = found_by(tmp_path, 0)
    two_processes(tmp_path / "run", stop=7, dropout=0.2, epochs=2)
    assert [path.name for path in checkpoints_in(tmp_path / "run" / "checkpoints")] == ["checkpoint-7"]
    for _ in range(2):
        two_processes(tmp_path / "run", dropout=0.2, epochs=2)
        for process in (0, 1):
            found = found_by(tmp_path, process)
            for mine, theirs in zip(found[0], expected[0], strict=True):
                assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
            for part in ("base", "edited", "comparison", "interventions"):
                assert found[1][part] == expected[1][part]


def test_a_process_alone_asks_only_itself() -> None:
    assert process_index() == 0
    assert of_all_processes("me") == ["me"]
