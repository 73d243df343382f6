"""Choosing is one act and proving another: no method meets a test example, and test is read once for each model."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.runs import trials_of

from strop.errors import RunError
from strop.interventions import Positions, attachments_of
from strop.progress import SILENT
from strop.proving import Assignment, Budget, Choice, Chooser, Journal, RunOptions, Study, prove
from strop.proving.guards import Guards
from strop.recipe import Recipe
from strop.runs import RunFolder, Stopwatch, locked
from strop.scoring import Scorer
from strop.searching import PrunePlan, Pruner, ReductionChooser, SearchPlan, prune, search
from strop.tasks import Example, Task
from strop.training import TrainPlan, train
from strop.training.fitter import Fitter

SEARCH = SearchPlan(
    compose="greedy", max_edits=2, rank_fractions=(0.1, 0.5), gradient_examples=8, top_matrices=3, finalists=2
)
PRUNE = PrunePlan(fractions=(0.02, 0.05), iterate=2)
TRAIN = TrainPlan(
    rank=2, layers=(1,), positions=Positions(1, 1), epochs=2, batch_size=6, accumulate=1, learning_rate=0.02
)
CHOOSERS: dict[str, Callable[[Assignment], Chooser]] = {
    "search": lambda given: ReductionChooser(given, SEARCH),
    "prune": lambda given: Pruner(given, PRUNE),
    "train": lambda given: Fitter(given, TRAIN),
}
METHODS: dict[str, Any] = {"search": (search, SEARCH), "prune": (prune, PRUNE), "train": (train, TRAIN)}


class Untouchable(Sequence[Example]):
    """Examples that fail a test when they are touched; how many there are may be asked."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: Any) -> Any:
        pytest.fail("a test example was touched")

    def __iter__(self) -> Any:
        pytest.fail("the test examples were touched")


def journal_of(chooser: Chooser, study: Study, **settings: Any) -> Journal:
    return Journal(
        study=study,
        space=chooser.space,
        stage="choice",
        progress=SILENT,
        stopwatch=Stopwatch(),
        budget=settings.pop("budget", Budget()),
        guards=Guards((), study=study),
        **settings,
    )


def chosen_by(chooser: Chooser, study: Study) -> Choice:
    return chooser.choose(journal_of(chooser, study))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("method", CHOOSERS)
def test_whoever_chooses_touches_no_test_example(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, laser: Recipe, method: str, after: bool
) -> None:
    blind = dataclasses.replace(task, splits={**task.splits, "test": Untouchable()})
    options = RunOptions(after=laser if after else None)
    chooser = CHOOSERS[method](Assignment.of(answering(), small_tokenizer, blind, options))
    found = chosen_by(chooser, Study(None, name="blind", spaces=[chooser.space]))
    assert found.best.merit > found.unedited.merit


def test_examples_that_are_not_to_be_touched_fail_whoever_measures_on_them(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    blind = dataclasses.replace(task, splits={**task.splits, "test": Untouchable()})
    with pytest.raises(pytest.fail.Exception, match="touched"):
        search(answering(), small_tokenizer, blind, SEARCH)


@pytest.mark.parametrize("method", METHODS)
def test_other_test_examples_change_no_trial_and_no_choice(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, method: str
) -> None:
    swapped = tuple(
        dataclasses.replace(example, answer=" Brazil", prompt="and " + example.prompt)
        for example in task.splits["test"]
    )
    other = dataclasses.replace(task, splits={**task.splits, "test": swapped})
    run, plan = METHODS[method]
    one, two = (run(answering(), small_tokenizer, each, plan) for each in (task, other))
    assert one.recipe.interventions == two.recipe.interventions
    assert trials_of(one) == trials_of(two)
    assert one.result.base["test"] != two.result.base["test"]


@pytest.mark.parametrize("method", METHODS)
def test_test_is_read_last_and_once_for_each_model(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task: Task,
    laser: Recipe,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    read: list[tuple[int, int]] = []
    real = Scorer.evaluate

    def watched(self: Scorer, **arguments: Any) -> Any:
        read.append((self.example_count, sum(len(one.interventions) for one in attachments_of(self.model))))
        return real(self, **arguments)

    monkeypatch.setattr(Scorer, "evaluate", watched)
    run, plan = METHODS[method]
    found = run(answering(), small_tokenizer, task, dataclasses.replace(plan, test_limit=7), RunOptions(after=laser))
    edits = len(found.recipe.interventions)
    assert edits > 2
    assert read[-3:] == [(7, 0), (7, 2), (7, edits)]
    assert 7 not in [count for count, _ in read[:-3]]
    assert found.result.cost.evaluations == len(found.trials) + 3


@pytest.mark.parametrize(
    ("begins", "adds", "passes"), [(False, False, 1), (False, True, 2), (True, False, 2), (True, True, 3)]
)
def test_the_same_model_is_never_read_twice(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task: Task,
    laser: Recipe,
    begins: bool,
    adds: bool,
    passes: int,
) -> None:
    given = Assignment.of(answering(), small_tokenizer, task, RunOptions(after=laser if begins else None))
    chooser = ReductionChooser(given, SEARCH)
    choice = chosen_by(chooser, Study(None, name="once", spaces=[chooser.space]))
    assert len(choice.edits.interventions) == 2 * begins + 2
    if not adds:
        best = choice.started or choice.unedited
        choice = dataclasses.replace(choice, edits=given.start, best=best)
    test = Scorer(given.model, small_tokenizer, task.examples("test"), task.score)
    measured = prove(given, choice, test)
    assert measured.passes == passes
    assert measured.tokens == passes * test.tokens
    assert (measured.edited is measured.base) == (passes == 1)
    assert (measured.started is not None) == begins


def test_methods_share_a_study_and_what_has_no_candidate_is_scored_once_for_both(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    model = answering()
    given = Assignment.of(model, small_tokenizer, task, RunOptions())
    choosers = [ReductionChooser(given, SEARCH), Pruner(given, PRUNE)]
    shared = Study(None, name="shared", spaces=[chooser.space for chooser in choosers])
    together = [chosen_by(chooser, shared) for chooser in choosers]
    alone = []
    for chooser in choosers:
        study = Study(None, name="alone", spaces=[chooser.space])
        alone.append((chosen_by(chooser, study), study))
    for mine, (theirs, _) in zip(together, alone, strict=True):
        assert mine.edits.interventions == theirs.edits.interventions
        assert mine.best.figures == theirs.best.figures
        assert mine.tokens == theirs.tokens
    assert together[0].unedited == together[1].unedited
    keys = [trial.key for trial in shared.trials()]
    assert len(keys) == len(set(keys)) == sum(len(study.trials()) for _, study in alone) - 1
    assert set(keys) == {trial.key for _, study in alone for trial in study.trials()}
    first, second = (journal_of(chooser, shared) for chooser in choosers)
    by_method = {trial.key.method: trial for trial in shared.trials()}
    assert first.candidate(by_method["rank_reduction"]) is not None
    assert first.candidate(by_method["singular_value_pruning"]) is None
    assert second.candidate(by_method["singular_value_pruning"]) is not None


def test_a_trial_that_another_holds_is_waited_for(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    given = Assignment.of(answering(), small_tokenizer, task, RunOptions())
    chooser = ReductionChooser(given, SEARCH)
    study = Study(None, name="held", spaces=[chooser.space])
    journal = journal_of(chooser, study)
    key = journal.unedited_key(examples=24)
    study.enqueue([key])
    held = study.claim()
    assert held is not None
    with held, pytest.raises(RunError, match=r"Another process works on the trial .*\"base\".*; wait for it"):
        chooser.choose(journal)


@pytest.mark.parametrize("method", METHODS)
def test_a_folder_that_is_being_worked_on_is_refused_in_one_sentence(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Any, method: str
) -> None:
    run, plan = METHODS[method]
    with locked(tmp_path / "run"), pytest.raises(RunError) as raised:
        run(answering(), small_tokenizer, task, plan, RunOptions(out=tmp_path / "run"))
    message = str(raised.value)
    assert message.startswith(f"{tmp_path / 'run'} is being worked on by process ")
    assert message.endswith("; wait for it, or choose another --out.")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", METHODS)
def test_the_study_is_whole_in_its_file_before_a_run_is_said_to_be_finished(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    run, plan = METHODS[method]
    there: list[set[str]] = []

    def looked(folder: RunFolder, *given: Any, **more: Any) -> None:
        there.append({file.name for file in folder.path.iterdir()})

    monkeypatch.setattr(RunFolder, "finish", looked)
    run(answering(), small_tokenizer, task, plan, RunOptions(out=tmp_path / "run"))
    (names,) = there
    assert "study.db" in names
    assert not {"study.db-wal", "study.db-shm"} & names  # a kill from here on leaves no log beside it
