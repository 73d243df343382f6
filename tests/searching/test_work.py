"""A search that others help with finds what it finds alone, and refuses helpers that are not up to it."""

import collections
import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from tests.fixtures.runs import figures_of, trials_of

import strop
from strop.anatomy import MatrixType
from strop.progress import SILENT
from strop.proving import ASSIGNMENT, Board, Budget, RunOptions, RunOutcome, Study
from strop.searching import PrunePlan, SearchPlan, prune, search, work
from strop.tasks import load_task

pytestmark = pytest.mark.thorough

PLAN = SearchPlan(
    strategy="exhaustive", compose="greedy", max_edits=2, layers=(1, 2), rank_fractions=(0.1, 0.5),
    matrix_types=(MatrixType.UP, MatrixType.DOWN, MatrixType.VALUE),
)  # fmt: skip


class InThread:
    """A worker as `hired` starts one, in a thread of this process."""

    errors: list[BaseException]

    def __init__(self, study: str, **_: Any) -> None:
        self.errors = []
        self._thread = threading.Thread(target=self._work, args=(study,))
        self._thread.start()

    def _work(self, study: str) -> None:
        try:
            work(study, device="cpu", progress=SILENT)
        except BaseException as error:
            self.errors.append(error)

    def poll(self) -> int | None:
        return None if self._thread.is_alive() else len(self.errors)

    def terminate(self) -> None:
        """It leaves when the choice is made."""

    kill = terminate

    def wait(self, timeout: float) -> int:
        self._thread.join(timeout)
        return 0


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch) -> list[InThread]:
    """Let workers be threads; the list of those that were started."""
    started: list[InThread] = []

    def start(study: str, **settings: Any) -> InThread:
        started.append(InThread(study, **settings))
        return started[-1]

    monkeypatch.setattr("strop.proving.hiring.start_process", start)
    return started


@pytest.fixture
def saved(answering: Callable[..., Any], small_tokenizer: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    answering().save_pretrained(folder)
    small_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def found(saved: Path, facts: Path, tmp_path: Path) -> Callable[..., RunOutcome]:
    """Search with so many workers."""

    def run(workers: int, plan: SearchPlan = PLAN, **options: Any) -> RunOutcome:
        out = tmp_path / f"run{workers}"
        return search(str(saved), facts, plan, RunOptions(out=out, workers=workers, progress=SILENT, **options))

    return run


def workers_of(address: str) -> collections.Counter[str]:
    (name, *_) = optuna.get_all_study_names(address)
    trials = optuna.load_study(study_name=name, storage=address).trials
    assert {trial.state.name for trial in trials} <= {"COMPLETE"}
    return collections.Counter(trial.user_attrs["worker"] for trial in trials)


@pytest.mark.parametrize("workers", [2, 4])
def test_several_workers_find_what_one_finds(
    found: Callable[..., RunOutcome], in_threads: list[InThread], tmp_path: Path, workers: int
) -> None:
    alone, together = found(1), found(workers)
    assert [worker.errors for worker in in_threads] == [[]] * (workers - 1)
    assert together.recipe == alone.recipe
    assert figures_of(together) == figures_of(alone)
    assert trials_of(together) == trials_of(alone)
    one, many = (tmp_path / f"run{count}" / "recipe" / "recipe.json" for count in (1, workers))
    assert one.read_bytes() == many.read_bytes()
    assert len(workers_of(f"sqlite:///{tmp_path / f'run{workers}' / 'study.db'}")) > 1


@pytest.mark.postgresql
def test_workers_meet_in_a_postgresql_database(
    found: Callable[..., RunOutcome], in_threads: list[InThread], postgresql: str
) -> None:
    alone, together = found(1), found(3, storage=postgresql)
    assert [worker.errors for worker in in_threads] == [[], []]
    assert (together.recipe, trials_of(together)) == (alone.recipe, trials_of(alone))


def test_a_search_after_a_recipe_with_a_gradient_is_helped_too(
    found: Callable[..., RunOutcome], in_threads: list[InThread]
) -> None:
    start = found(1).recipe
    plan = SearchPlan(rank_fractions=(0.3, 0.5), gradient_examples=8, top_matrices=6, finalists=3, layers=(0, 1, 2))
    assert start.interventions
    alone = found(2, plan, after=start)
    together = found(3, plan, after=start)
    assert [worker.errors for worker in in_threads] == [[], [], []]
    assert together.recipe == alone.recipe
    assert trials_of(together) == trials_of(alone)


def test_a_budget_of_evaluations_ends_a_shared_search_where_it_ends_a_lone_one(
    found: Callable[..., RunOutcome], in_threads: list[InThread]
) -> None:
    alone, together = (found(count, budget=Budget(evaluations=7)) for count in (1, 2))
    assert len(alone.trials) == 7
    assert trials_of(together) == trials_of(alone)
    assert together.recipe == alone.recipe


@pytest.fixture
def waiting(found: Callable[..., RunOutcome], tmp_path: Path) -> Path:
    """The study.db of a search that is going on, as far as it says."""
    found(1)
    study = tmp_path / "run1" / "study.db"
    address = f"sqlite:///{study}"
    (name,) = optuna.get_all_study_names(address)
    open_again = Study(address, name=name)
    Board(open_again, open_again.recall(ASSIGNMENT, hidden=True)).clear()
    open_again.close()
    return study


def told(call: Callable[[], object]) -> str:
    with pytest.raises(strop.StropError) as refusal:
        call()
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_a_finished_search_asks_for_no_help(found: Callable[..., RunOutcome], tmp_path: Path) -> None:
    found(1)
    assert "asks for help: begin one with strop search" in told(lambda: work(tmp_path / "run1"))


def test_another_model_another_tokenizer_and_another_version_are_refused(
    waiting: Path, saved: Path, tiny: Callable[..., Any], small_tokenizer: Any, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    tiny("llama").save_pretrained(other)
    small_tokenizer.save_pretrained(other)
    said = told(lambda: work(waiting, other, progress=SILENT))
    assert f"is of {saved} (" in said
    assert f"and the weights of {other} are others (" in said
    assert said.endswith("name a copy of that model.")

    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1}))
    assert "its tokenizer, chat template or config are others" in told(lambda: work(waiting, progress=SILENT))

    address = f"sqlite:///{waiting}"
    (name,) = optuna.get_all_study_names(address)
    study = Study(address, name=name)
    notice = study.recall(ASSIGNMENT, hidden=True)
    study.remember(ASSIGNMENT, {**notice, "strop": "0.0.1"}, hidden=True)
    study.close()
    assert "is of Strop 0.0.1, and this is" in told(lambda: work(waiting, progress=SILENT))


def test_no_test_example_reaches_a_helper(waiting: Path, facts: Path) -> None:
    address = f"sqlite:///{waiting}"
    (name,) = optuna.get_all_study_names(address)
    study = Study(address, name=name)
    notice = study.recall(ASSIGNMENT, hidden=True)
    study.close()
    task = load_task(facts)
    assert list(notice["task"]["splits"]) == ["select"]
    assert not {example.prompt for example in task.examples("test")} & {
        row["prompt"] for row in notice["task"]["splits"]["select"]
    }


def test_studies_that_are_not_there_are_told_in_one_sentence(tmp_path: Path) -> None:
    missing = tmp_path / "no.db"
    assert told(lambda: work(missing)).startswith(f"There is no study at {missing}: give the address of a search's")
    assert told(lambda: work(f"sqlite:///{missing}")).startswith("There is no study at ")
    assert not missing.exists()
    (tmp_path / "empty.db").touch()
    assert "asks for help" in told(lambda: work(tmp_path / "empty.db"))
    said = told(lambda: work("postgresql+psycopg://me:s3cret@127.0.0.1:1/db"))
    assert said.startswith("The study postgresql+psycopg://me:***@127.0.0.1:1/db cannot be reached: ")
    assert "s3cret" not in said
    assert told(lambda: work("nothing://")).startswith("The study nothing:// cannot be reached: ")


def test_a_pruning_has_no_work_for_several(saved: Path, facts: Path, tmp_path: Path) -> None:
    options = RunOptions(out=tmp_path / "run", workers=2, progress=SILENT)
    said = told(lambda: prune(str(saved), facts, PrunePlan(effect_examples=4), options))
    assert said == "Only a search has work for several workers: prune works alone; leave workers out."


def test_several_workers_need_a_place_to_meet() -> None:
    assert told(lambda: RunOptions(workers=2)).startswith("Several workers meet in a study: name its folder")
    assert told(lambda: RunOptions(workers=0)) == "workers is 1 or more, not 0."
    assert told(lambda: dataclasses.replace(RunOptions(), executor="slurm")).startswith(
        "executor is one of processes, ray"
    )  # type: ignore[arg-type]
