"""Workers on one search: how much faster two are on this machine, and what sharing itself costs with 64 of them.

The second is a simulated cluster: each worker is a thread with a connection, a queue and a heartbeat of its own, as a machine
would have it, and its trials only sleep. Its overhead is 1 − trials · seconds of a trial / (workers · wall seconds): all that
is not sleeping, from the first trial enqueued to the last one finished, waiting at the end and this machine's own load
included; not the start of the workers. The ideal is what remains of it where only the last, unequal round of trials is lost.
"""

import argparse
import itertools
import json
import math
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import optuna

from common import write_result
from strop.progress import SILENT
from strop.proving import (
    Board,
    Budget,
    CandidateSpace,
    Guards,
    Journal,
    Study,
    TrialKey,
    Turns,
    batch_of,
    help_with,
    helper_name,
)
from strop.runs import Stopwatch
from strop.statistics import Figures

LAYERS = 100
CUTS: CandidateSpace[tuple[int, int]] = CandidateSpace(
    "cut",
    {"layer": optuna.distributions.IntDistribution(0, 10**6), "rank": optuna.distributions.IntDistribution(0, 10**6)},
    lambda cut: {"layer": cut[0], "rank": cut[1]},
    lambda settings: (settings["layer"], settings["rank"]),
)


class _Slept:
    """What stands for an evaluation."""

    figures = Figures(0.5, 1.0, 24)


def _opened(address: str, worker: str | None = None) -> Study:
    return Study(address, name="cluster", spaces=[CUTS], worker=worker)


def _journal(study: Study, board: Board | None = None) -> Journal:
    return Journal(
        study=study,
        space=CUTS,
        stage="choice",
        progress=SILENT,
        stopwatch=Stopwatch(),
        budget=Budget(),
        guards=Guards((), study=study),
        board=board,
    )


def _layer_of(key: TrialKey) -> object:
    return key.candidate["layer"]


def _sleep_through(turns: Turns, seconds: float) -> None:
    evaluation: Any = _Slept

    def score() -> Any:
        time.sleep(seconds)
        return evaluation

    with turns:
        for _ in turns:
            turns.measure(score)


def _help(address: str, seconds: float) -> None:
    study = _opened(address, helper_name())

    def take_part(batch: Any, keys: Any) -> None:
        turns = Turns(
            study,
            keys,
            portion=_layer_of,
            finish=_journal(study).finish,
            over=lambda: batch_of(study) != batch,
            decides=False,
        )
        _sleep_through(turns, seconds)

    help_with(study, take_part, where=address)
    study.close()


def _help_many(address: str, seconds: float, count: int, ready: Any, spent: Any) -> None:
    ready.release()
    before = time.process_time()
    threads = [threading.Thread(target=_help, args=(address, seconds)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent.put(time.process_time() - before)


def simulate(address: str, *, workers: int, trials: int, seconds: float, processes: int) -> dict[str, Any]:
    """Return what sharing costs where trials only sleep."""
    study = _opened(address)
    keys = [
        CUTS.key((index // (trials // LAYERS), index), stage="choice", round=1, split="select", examples=24)
        for index in range(trials)
    ]
    board = Board(study, {})
    shares = [(workers - 1) // processes + (own < (workers - 1) % processes) for own in range(processes)]
    with board.held():
        spawn = multiprocessing.get_context("spawn")
        ready, spent = spawn.Semaphore(0), spawn.Queue()
        helpers = [spawn.Process(target=_help_many, args=(address, seconds, share, ready, spent)) for share in shares]
        for helper in helpers:
            helper.start()
        for _ in helpers:  # they load the library, which a worker does once in its life
            ready.acquire()
        time.sleep(2)  # they open the study
        began, before = time.perf_counter(), time.process_time()
        turns = _journal(study, board).in_turn(keys, portion=_layer_of)
        enqueued = time.perf_counter()
        _sleep_through(turns, seconds)
        wall, own = time.perf_counter() - began, time.process_time() - before
    cpu = own + sum(spent.get() for _ in helpers)
    for helper in helpers:
        helper.join()
    records = optuna.load_study(study_name="cluster", storage=address).get_trials(deepcopy=False)
    rows: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        assert record.datetime_start is not None
        assert record.datetime_complete is not None
        own_rows = rows.setdefault(record.user_attrs["worker"], [])
        own_rows.append((record.datetime_start.timestamp(), record.datetime_complete.timestamp()))
    first = min(start for each in rows.values() for start, _ in each)
    pauses = [later[0] - earlier[1] for each in rows.values() for earlier, later in itertools.pairwise(sorted(each))]
    done = [record.user_attrs["key"] for record in records if record.state is optuna.trial.TrialState.COMPLETE]
    return {
        "workers": workers,
        "trials": trials,
        "seconds_a_trial": seconds,
        "helper_processes": processes,
        "database": address.split(":", 1)[0],
        "enqueue_seconds": round(enqueued - began, 2),
        "wall_seconds": round(wall, 2),
        "overhead": round(1 - trials * seconds / (workers * wall), 4),
        "cpu_seconds": round(cpu, 2),
        "cpu_count": os.cpu_count(),
        "all_began_seconds": round(max(min(each)[0] for each in rows.values()) - first, 2),
        "first_left_seconds": round(
            max(end for each in rows.values() for _, end in each) - min(max(each)[1] for each in rows.values()), 2
        ),
        "mean_pause_seconds": round(statistics.mean(pauses), 4),
        "overhead_of_pauses": round(1 - seconds / (seconds + statistics.mean(pauses)), 4),
        "ideal_overhead": round(1 - trials / (workers * math.ceil(trials / workers)), 4),
        "every_trial_once": len(done) == len(set(done)) == trials and len(records) == trials,
        "load_average": os.getloadavg()[0],
    }


def speed_up(model: str, task: str, *, workers: int) -> dict[str, Any]:
    """Return how long a search takes alone and with several workers, a thread each."""
    found: dict[int, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for count in (1, workers):
            out = Path(scratch) / str(count)
            call = [
                sys.executable, "-m", "strop", "search", model, "--task", task, "--out", str(out), "--strategy", "exhaustive",
                "--matrix-types", "up,down", "--layers", "20-29", "--rank-fractions", "0.01,0.1,0.4,0.8", "--select-limit", "100",
                "--test-limit", "20", "--no-rivals", "--quiet", "--json", "--workers", str(count),
            ]  # fmt: skip
            began = time.perf_counter()
            done = subprocess.run(
                call,
                check=True,
                capture_output=True,
                env={**os.environ, "OMP_NUM_THREADS": str(workers if count > 1 else 1)},
            )
            seconds = time.perf_counter() - began
            trials = optuna.load_study(study_name=None, storage=f"sqlite:///{out / 'study.db'}").trials
            times = sorted(trial.user_attrs["scores"]["elapsed_seconds"] for trial in trials)
            recipe = json.loads((out / "recipe" / "recipe.json").read_text())["interventions"]
            by_worker = len({trial.user_attrs["worker"] for trial in trials})
            found[count] = {
                "seconds": round(seconds, 1),
                "choice_seconds": round(times[-1] - times[0], 1),
                "trials": len(trials),
                "workers_that_scored": by_worker,
                "recipe": recipe,
                "evaluations": json.loads(done.stdout)["cost"]["evaluations"],
            }
    one, many = found[1], found[workers]
    return {
        "workers": workers,
        "one": one,
        "several": many,
        "same_recipe": one["recipe"] == many["recipe"],
        "speed_up": round(one["seconds"] / many["seconds"], 2),
        "speed_up_of_the_choice": round(one["choice_seconds"] / many["choice_seconds"], 2),
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", help="for the simulated cluster; an SQLite file by default")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=1.5, help="of a trial that only sleeps")
    parser.add_argument("--processes", type=int, default=4, help="that hold the simulated workers")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--task", default="world-facts")
    parser.add_argument("--only", choices=["cluster", "speed"])
    given = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="strop-workers-"))
    figures: dict[str, Any] = {}
    try:
        if given.only != "speed":
            figures["cluster"] = simulate(
                given.database or f"sqlite:///{scratch / 'study.db'}",
                workers=given.workers,
                trials=given.trials,
                seconds=given.seconds,
                processes=given.processes,
            )
        if given.only != "cluster":
            figures["two_workers"] = speed_up(given.model, given.task, workers=2)
    finally:
        shutil.rmtree(scratch)
    write_result("workers", figures)


if __name__ == "__main__":
    main()
