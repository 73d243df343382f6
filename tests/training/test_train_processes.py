"""Two processes, in an environment such as torchrun gives, learn what one does with twice the batch; the first writes."""

import dataclasses
import json
import pickle
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.warm import StartWarm

from strop.proving.processes import of_all_processes, process_index
from strop.recipe import Recipe
from strop.training import TrainPlan
from strop.training.checkpoints import checkpoints_in

CODE = """
import json, os, pickle, sys
folder, tests, tokenizer, task, sittings = json.loads(sys.argv[1])
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
plan["keep_base"] = 0
tokenizer, task, results = AutoTokenizer.from_pretrained(tokenizer), load_task(task), []
for out, stop, changes in sittings:
    try:
        model = make_tiny("llama")
        found = train(model, tokenizer, task, TrainPlan(**{**plan, **changes}), RunOptions(out=out, resume=out is not None))
        results.append((found.recipe.tensors, found.result.to_json(), len(found.trials)))
    except KeyboardInterrupt:
        results.append("interrupted")
with open(f"{folder}/found-{rank}.pickle", "wb") as file:
    pickle.dump(results, file)
"""


NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
STOPPED = {"dropout": 0.2, "epochs": 2, "gradient_checkpointing": True, "keep_base": 2.0}


@dataclasses.dataclass(frozen=True)
class Found:
    """What two processes found in the same sittings, and what they left."""

    first: list[Any]
    second: list[Any]
    said: str
    folder: Path


@pytest.fixture(scope="module")
def two_processes(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, write_task: Any, warm_python: StartWarm
) -> Found:
    """Train in two processes five times: to the end; without a folder, stopped at a step, going on, and finished."""
    folder = tmp_path_factory.mktemp("processes")
    run = str(folder / "stopped")
    sittings = [
        (str(folder / "run"), None, {"epochs": 4}),
        (None, None, STOPPED),
        (run, 7, STOPPED),
        (run, None, STOPPED),
        (run, None, STOPPED),
    ]
    given = (str(folder), str(Path(__file__).parents[1]), str(tiny_folder), str(write_task(folder)), sittings)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    processes = [
        warm_python(
            CODE, json.dumps(given), environment={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), **NO_GPU}
        )
        for rank in (0, 1)
    ]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    first, second = (pickle.loads((folder / f"found-{rank}.pickle").read_bytes()) for rank in (0, 1))
    return Found(first, second, "".join(said), folder)


def same_tensors(one: Any, two: Any) -> bool:
    return all(
        mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
        for mine, theirs in zip(one, two, strict=True)
    )


@pytest.mark.thorough
def test_two_processes_learn_what_one_does_and_the_first_writes(
    whole: Any, two_processes: Found, plan: TrainPlan
) -> None:
    alone = whole(plan).outcome
    run, (tensors, result, trials), other = (
        two_processes.folder / "run",
        two_processes.first[0],
        two_processes.second[0],
    )
    assert other[1:] == (result, trials) == (result, 5)
    assert same_tensors(other[0], tensors)
    assert same_tensors(Recipe.load(run / "recipe").tensors, tensors)
    for mine, expected in zip(tensors, alone.recipe.tensors, strict=True):
        for name in expected:
            torch.testing.assert_close(mine[name], expected[name], rtol=1e-2, atol=2e-3)
    assert result["edited"]["select"]["loss"] == pytest.approx(alone.result.edited["select"].loss, rel=1e-3)
    log = (run / "log.txt").read_text()
    assert log.count("started") == log.count("finished") == log.count("epoch 3:") == 1
    (kept,) = checkpoints_in(run / "checkpoints")
    assert sorted(path.name for path in kept.glob("randomness*")) == ["randomness-0.json", "randomness-1.json"]
    assert "Warning" not in two_processes.said
    assert "Traceback" not in two_processes.said


@pytest.mark.thorough
def test_two_processes_stop_at_one_step_and_go_on_to_the_last_bit(two_processes: Found) -> None:
    """And both read back a run that is finished."""
    first, second = two_processes.first[1:], two_processes.second[1:]
    assert first[1] == second[1] == "interrupted"
    assert "going on from step 7, in epoch 1" in (two_processes.folder / "stopped" / "log.txt").read_text()
    expected = first[0]
    for found in (second[0], first[2], second[2], first[3], second[3]):
        assert same_tensors(found[0], expected[0])
        for part in ("base", "edited", "comparison", "interventions"):
            assert found[1][part] == expected[1][part]


def test_a_process_alone_asks_only_itself() -> None:
    assert process_index() == 0
    assert of_all_processes("me") == ["me"]
