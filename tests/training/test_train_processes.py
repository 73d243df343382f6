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

from strop.proving.processes import of_all_processes, process_index
from strop.recipe import Recipe
from strop.training import TrainPlan
from strop.training.checkpoints import checkpoints_in

CODE = """
import json, os, pickle, sys
tests, tokenizer, task, sittings = json.loads(sys.argv[1])
sys.path.insert(0, tests)
import torch
torch.set_num_threads(1)
from conftest import make_tiny
from transformers import AutoTokenizer
from strop.proving import RunOptions
from strop.tasks import load_task
from strop.training import TrainPlan, train
from strop.interventions import Positions
from strop.training.watch import Watch

rank = int(os.environ["RANK"])
real, stop = Watch.on_step_end, None

def ending(self, args, state, control, **rest):
    if rank == 1 and state.global_step == stop:
        self.interrupted = True  # only one of them was told
    real(self, args, state, control, **rest)

Watch.on_step_end = ending
plan = dict(rank=4, layers=(1, 2), positions=Positions(1, 1), batch_size=2, accumulate=1, learning_rate=0.02, init="paper")
tokenizer, task, results = AutoTokenizer.from_pretrained(tokenizer), load_task(task), []
for out, stop, changes in sittings:
    try:
        model = make_tiny("llama")
        found = train(model, tokenizer, task, TrainPlan(**plan, **changes), RunOptions(out=out, resume=out is not None))
        results.append((found.recipe.tensors, found.result.to_json(), len(found.trials)))
    except KeyboardInterrupt:
        results.append("interrupted")
with open(f"{os.path.dirname(__file__)}/found-{rank}.pickle", "wb") as file:
    pickle.dump(results, file)
"""


@pytest.fixture
def two_processes(
    tmp_path: Path, tiny_folder: Path, written_task: Any
) -> Callable[..., tuple[list[Any], list[Any], str]]:
    """Train in two processes, several times; return what each found, and what they wrote to their errors."""

    def run(*sittings: tuple[Path | None, int | None, dict[str, Any]]) -> tuple[list[Any], list[Any], str]:
        (tmp_path / "train.py").write_text(CODE)
        spelled = [(out and str(out), stop, changes) for out, stop, changes in sittings]
        given = (str(Path(__file__).parents[1]), str(tiny_folder), str(written_task()), spelled)
        call = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
        finished = subprocess.run(
            [sys.executable, *call, str(tmp_path / "train.py"), json.dumps(given)],
            capture_output=True,
            text=True,
            timeout=200,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        )
        assert finished.returncode == 0, finished.stderr
        first, second = (pickle.loads((tmp_path / f"found-{process}.pickle").read_bytes()) for process in (0, 1))
        return first, second, finished.stderr

    return run


def same_tensors(one: Any, two: Any) -> bool:
    return all(
        mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
        for mine, theirs in zip(one, two, strict=True)
    )


def test_two_processes_learn_what_one_does_and_the_first_writes(
    training: Any, two_processes: Any, plan: TrainPlan, tmp_path: Path
) -> None:
    alone = training(plan)
    ((tensors, result, trials),), second, said = two_processes((tmp_path / "run", None, {"epochs": 4}))
    assert second[0][1:] == (result, trials) == (result, 5)
    assert same_tensors(second[0][0], tensors)
    assert same_tensors(Recipe.load(tmp_path / "run" / "recipe").tensors, tensors)
    for mine, expected in zip(tensors, alone.recipe.tensors, strict=True):
        for name in expected:
            torch.testing.assert_close(mine[name], expected[name], rtol=1e-2, atol=2e-3)
    assert result["edited"]["select"]["loss"] == pytest.approx(alone.result.edited["select"].loss, rel=1e-3)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("started") == log.count("finished") == log.count("epoch 3:") == 1
    (kept,) = checkpoints_in(tmp_path / "run" / "checkpoints")
    assert sorted(path.name for path in kept.glob("randomness*")) == ["randomness-0.json", "randomness-1.json"]
    assert "Warning" not in said
    assert "Traceback" not in said


def test_two_processes_stop_at_one_step_and_go_on_to_the_last_bit(two_processes: Any, tmp_path: Path) -> None:
    """And both read back a run that is finished."""
    run, changes = tmp_path / "run", {"dropout": 0.2, "epochs": 2, "gradient_checkpointing": True}
    first, second, _ = two_processes(
        (None, None, changes), (run, 7, changes), (run, None, changes), (run, None, changes)
    )
    assert first[1] == second[1] == "interrupted"
    assert "going on from step 7, in epoch 1" in (run / "log.txt").read_text()
    expected = first[0]
    for found in (second[0], first[2], second[2], first[3], second[3]):
        assert same_tensors(found[0], expected[0])
        for part in ("base", "edited", "comparison", "interventions"):
            assert found[1][part] == expected[1][part]


def test_a_process_alone_asks_only_itself() -> None:
    assert process_index() == 0
    assert of_all_processes("me") == ["me"]
