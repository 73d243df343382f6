"""Workers that share a batch: each trial to one of them, portion by portion, whoever dies."""

import collections
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from strop.errors import RunError
from strop.progress import SILENT
from strop.proving import Board, Budget, CandidateSpace, Guards, Journal, Study, TrialKey, Turns, batch_of, help_with
from strop.proving.board import waiting_of
from strop.proving.turns import next_portion
from strop.proving.workers import helper_name, is_gone, is_helper
from strop.runs import Stopwatch
from strop.statistics import Figures

Cut = tuple[int, int]
CUTS: CandidateSpace[Cut] = CandidateSpace(
    "cut",
    {"layer": optuna.distributions.IntDistribution(0, 99), "rank": optuna.distributions.IntDistribution(0, 99)},
    lambda cut: {"layer": cut[0], "rank": cut[1]},
    lambda settings: (settings["layer"], settings["rank"]),
)
KEYS = [
    CUTS.key((layer, rank), stage="choice", round=1, split="select", examples=24)
    for layer in range(5)
    for rank in range(4)
]


class Scored:
    """What stands for an evaluation."""

    figures = Figures(0.5, 1.0, 24)


def layer_of(key: TrialKey) -> Any:
    return key.candidate["layer"]


def opened(address: str, worker: str | None = None, **settings: Any) -> Study:
    return Study(address, name="shared", spaces=[CUTS], worker=worker, **settings)


def journal(study: Study, board: Board | None = None, budget: Budget | None = None) -> Journal:
    return Journal(
        study=study, space=CUTS, stage="choice", progress=SILENT, stopwatch=Stopwatch(), budget=budget or Budget(),
        guards=Guards((), study=study), board=board,
    )  # fmt: skip


def do(turns: Turns, begun: list[TrialKey], seconds: float = 0.0, before: Callable[[], object] = lambda: None) -> None:
    with turns:
        for key in turns:
            begun.append(key)
            before()
            time.sleep(seconds)
            turns.measure(lambda: Scored)  # type: ignore[arg-type, return-value]


def help_out(address: str, begun: list[TrialKey], errors: list[BaseException], seconds: float = 0.002) -> None:
    """Help as `strop work` does, with trials that only sleep."""
    study = opened(address, helper_name())

    def take_part(batch: Any, keys: Any) -> None:
        turns = Turns(
            study, keys, portion=layer_of, finish=journal(study).finish, over=lambda: batch_of(study) != batch,
            decides=False,
        )  # fmt: skip
        do(turns, begun, seconds)

    try:
        help_with(study, take_part, where="here")
    except BaseException as error:
        errors.append(error)
    finally:
        study.close()


def decided(address: str, helpers: int, *, seconds: float = 0.002) -> tuple[list[list[TrialKey]], Study]:
    """Let a batch be done by one that decides and some that help; return what each began, and the study."""
    study = opened(address)
    begun: list[list[TrialKey]] = [[] for _ in range(helpers + 1)]
    errors: list[BaseException] = []
    board = Board(study, {})
    with board.held():
        threads = [threading.Thread(target=help_out, args=(address, own, errors, seconds)) for own in begun[1:]]
        for thread in threads:
            thread.start()
        turns = journal(study, board).in_turn(KEYS, portion=layer_of)
        do(turns, begun[0], seconds)
    for thread in threads:
        thread.join()
    assert errors == []
    return begun, study


@pytest.mark.parametrize("helpers", [1, 3])
def test_workers_on_sqlite_do_every_trial_once_between_them(tmp_path: Path, helpers: int) -> None:
    begun, study = decided(f"sqlite:///{tmp_path / 'study.db'}", helpers, seconds=0.01)
    assert collections.Counter(key for own in begun for key in own) == dict.fromkeys(KEYS, 1)
    assert sum(map(bool, begun)) > 1
    assert {trial.key for trial in study.trials()} == set(KEYS)
    assert batch_of(study).over  # type: ignore[union-attr]


@pytest.mark.postgresql
@pytest.mark.parametrize("helpers", [1, 3])
def test_workers_on_postgresql_do_every_trial_once_between_them(
    postgresql: str, helpers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"shared-{helpers}"
    monkeypatch.setitem(
        globals(), "opened", lambda address, worker=None: Study(address, name=name, spaces=[CUTS], worker=worker)
    )
    begun, study = decided(postgresql, helpers, seconds=0.01)
    assert collections.Counter(key for own in begun for key in own) == dict.fromkeys(KEYS, 1)
    assert sum(map(bool, begun)) > 1
    assert {trial.key for trial in study.trials()} == set(KEYS)


def test_one_worker_alone_goes_through_the_trials_in_their_order() -> None:
    study = Study(None, name="alone", spaces=[CUTS])
    begun: list[TrialKey] = []
    do(journal(study).in_turn(KEYS, portion=layer_of), begun)
    assert begun == KEYS


def test_a_worker_takes_a_portion_nobody_has_begun_else_the_second_half_of_the_longest_rest() -> None:
    sizes = collections.Counter(map(layer_of, KEYS))
    assert next_portion(KEYS, sizes, layer_of) == KEYS[:4]
    assert next_portion(KEYS[1:], sizes, layer_of) == KEYS[4:8]
    assert next_portion([*KEYS[1:4], KEYS[7]], sizes, layer_of) == KEYS[2:4]
    assert next_portion(KEYS[1:], sizes, layer_of, choose=lambda portions: portions[-1]) == KEYS[-4:]


def test_whoever_decides_takes_over_what_a_dead_helper_held(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'study.db'}"
    study = opened(address)
    dead = helper_name().split(" ")
    dead[2] = str(2**22 + 1)  # no process has such a number
    turns = journal(study).in_turn(KEYS, portion=layer_of)
    held = opened(address, " ".join(dead)).claim(KEYS[:1])
    assert held is not None
    begun: list[TrialKey] = []
    do(turns, begun)
    assert collections.Counter(begun) == dict.fromkeys(KEYS, 1)
    assert begun[-1] == KEYS[0]
    assert len(study.trials()) == len(KEYS)


def test_whoever_decides_waits_for_what_others_hold(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'study.db'}"
    study, other = opened(address), opened(address, helper_name())
    turns = journal(study).in_turn(KEYS, portion=layer_of)
    held = other.claim(KEYS[:1])
    assert held is not None

    def finish_late() -> None:
        with held:
            time.sleep(0.3)
            journal(other).finish(held, lambda: Scored)  # type: ignore[arg-type, return-value]

    thread = threading.Thread(target=finish_late)
    thread.start()
    begun: list[TrialKey] = []
    do(turns, begun)
    thread.join()
    assert begun == KEYS[4:] + KEYS[1:4] or set(begun) == set(KEYS[1:])
    assert study.find(KEYS[0]) is not None


def test_an_exception_puts_back_what_is_held(tmp_path: Path) -> None:
    study = opened(f"sqlite:///{tmp_path / 'study.db'}")
    turns = journal(study).in_turn(KEYS, portion=layer_of)
    with pytest.raises(KeyboardInterrupt):
        do(turns, [], before=lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert study.waiting(KEYS) == tuple(KEYS)


def test_of_a_budget_of_evaluations_helpers_do_no_more_than_it_allows(tmp_path: Path) -> None:
    study = opened(f"sqlite:///{tmp_path / 'study.db'}")
    study.enqueue(KEYS)  # as an earlier sitting without a limit left them
    board = Board(study, {})
    own = journal(study, board, Budget(evaluations=6))
    allowed = list(own.affordable(KEYS))
    assert allowed == KEYS[:6]
    with board.held():
        own.in_turn(allowed, portion=layer_of)
        batch = batch_of(study)
        assert batch is not None
        assert waiting_of(study, batch) == tuple(KEYS[:6])
    assert waiting_of(study, batch_of(study)) == ()  # type: ignore[arg-type]


def test_a_budget_that_is_spent_is_told_to_helpers(tmp_path: Path) -> None:
    study = opened(f"sqlite:///{tmp_path / 'study.db'}")
    board = Board(study, {})
    with board.held():
        begun: list[TrialKey] = []
        do(journal(study, board, Budget(evaluations=1)).in_turn(KEYS, portion=layer_of), begun)
        assert begun == KEYS[:1]
        assert batch_of(study).alike is None  # type: ignore[union-attr]


def test_a_helper_leaves_when_whoever_decides_has_fallen_silent(tmp_path: Path) -> None:
    study = opened(f"sqlite:///{tmp_path / 'study.db'}")
    Board(study, {}).clear()
    with pytest.raises(
        RunError, match=r"given no sign of life for 0.1 s: go on with it by --resume, then start its workers\.$"
    ):
        help_with(study, lambda batch, keys: None, where="x", patience_seconds=0.1)


def test_names_of_helpers_say_whether_they_are_gone() -> None:
    own = helper_name()
    assert is_helper(own)
    assert not is_gone(own)
    first, node, _, last = own.split(" ")
    assert is_gone(f"{first} {node} {2**22 + 1} {last}")
    assert not is_gone(f"{first} elsewhere {2**22 + 1} {last}")
    assert not is_gone("0123abcd")
    assert not is_helper(None)


def test_a_resumed_run_leaves_a_living_helper_what_it_holds(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'study.db'}"
    before, helper, study = opened(address, "before"), opened(address, helper_name()), opened(address)
    before.enqueue(KEYS[:2])
    assert before.claim() is not None
    assert helper.claim() is not None
    assert study.requeue_abandoned(alone=True) == (KEYS[0],)
