"""A guard: what it reads, when it is looked at, and that what it refuses is not chosen."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.judging import Scripted
from tests.fixtures.runs import Notes, figures_of, reduction_of

import strop
from strop.anatomy import Anatomy
from strop.errors import StropError, TaskError, UsageError
from strop.interventions import Positions, RankReduction, applied_interventions
from strop.proving import Guard, Measure, RunOptions, Study, TaskAccuracy, TextPerplexity, Trial, TrialKey
from strop.proving.guards import Guards
from strop.recipe import Recipe
from strop.runs import GuardReading, RunResult
from strop.scoring import text_scorer
from strop.searching import PrunePlan, SearchPlan, prune, search
from strop.tasks import Task
from strop.training import TrainPlan, train

SEARCH = SearchPlan(strategy="exhaustive", layers=(2,), rank_fractions=(0.02, 0.2))
PRUNE = PrunePlan(fractions=(0.02, 0.05, 0.1), iterate=3)
TRAIN = TrainPlan(
    rank=2, layers=(1,), positions=Positions(1, 1), epochs=3, batch_size=6, accumulate=1, learning_rate=0.02
)
PROSE = "The city of Lyon is in France and the city of Curitiba is in Brazil. The capital of France is Paris. " * 6


def other_task(task: Task) -> Task:
    """Wants the other country, so that what gains at the one loses at the other."""
    swapped = {" France": " Brazil", " Brazil": " France"}
    examples = tuple(dataclasses.replace(e, answer=swapped[e.answer]) for e in task.splits["test"])
    return dataclasses.replace(task, name="others", splits={"select": examples})


# What a guard says


def test_what_the_command_line_spells_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:b.txt").write_text(PROSE)
    text, task = Guard.parse("a:b.txt:2.5%"), Guard.parse("int-mult: 1")
    assert isinstance(text.measure, TextPerplexity)
    assert (text.measure.text, text.bound) == (PROSE, 0.025)
    assert isinstance(task.measure, TaskAccuracy)
    assert (task.measure.task.name, task.bound) == ("int-mult", 0.01)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        (
            "notes.txt",
            UsageError,
            r"'notes\.txt' is no guard: write drift:0\.05 for .*, FILE\.txt:2% for .*, or TASK:1 for points",
        ),
        ("notes.txt:", UsageError, "is no guard"),
        ("drfit:0.1", UsageError, r"^'drfit:0\.1' guards nothing: did you mean drift:0\.1\?$"),
        ("notes.txt:two%", UsageError, "is no guard"),
        (":2%", UsageError, "is no guard"),
        ("", UsageError, "is no guard"),
        ("notes.txt:-1%", UsageError, r"The guard on notes\.txt has a bound of 0 or more, not -0\.01"),
        ("notes.txt:nan%", UsageError, "has a bound of 0 or more, not nan"),
        ("int-mult:inf", UsageError, "has a bound of 0 or more, not inf"),
        ("missing.txt:2%", UsageError, r"missing\.txt cannot be read: No such file"),
        (".:2%", UsageError, "cannot be read: Is a directory"),
        ("bytes.bin:2%", UsageError, "it is not UTF-8 text"),
        ("blank.txt:2%", UsageError, r"blank\.txt is empty; give a file with some pages"),
        ("notes.txt:2", UsageError, r"notes\.txt is a text file, whose bound is written with a per cent sign \(2%\)"),
        ("no-such-task:1", TaskError, "There is no task 'no-such-task'"),
    ],
)
def test_what_is_no_guard_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, error: type[StropError], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text(PROSE)
    (tmp_path / "blank.txt").write_text(" \n")
    (tmp_path / "bytes.bin").write_bytes(b"\xff\xfe\x00\x9f")
    with pytest.raises(error, match=said) as raised:
        Guard.parse(text)
    assert "\n" not in str(raised.value)


def test_a_task_scored_by_loss_alone_guards_nothing(task: Task) -> None:
    with pytest.raises(UsageError, match="small-facts is scored by loss alone, and a guard needs right and wrong"):
        TaskAccuracy(dataclasses.replace(task, score="perplexity"))


def test_a_text_too_short_for_the_model_is_refused_before_a_folder_is_made(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    guard = Guard(TextPerplexity("short.txt", "Lyon"), 0.1)
    with pytest.raises(UsageError, match=r"short\.txt has \d tokens, too few to measure perplexity on"):
        search(answering(), small_tokenizer, task, SEARCH, RunOptions(out=tmp_path / "run", guards=[guard]))
    assert not (tmp_path / "run").exists()


def test_perplexity_harms_by_its_growth_and_accuracy_by_what_is_lost(task: Task) -> None:
    text, accuracy = TextPerplexity("notes.txt", PROSE), TaskAccuracy(task)
    assert text.harm(20.0, 22.0) == pytest.approx(0.1)
    assert accuracy.harm(0.5, 0.25) == 0.25
    assert text.harm(20.0, 10.0) < 0
    assert Guard(text, 0.1).read(20.0, 22.0).holds
    assert Guard(accuracy, 0.01).read(0.9, 0.89).holds
    assert not Guard(accuracy, 0.2).read(0.5, 0.25).holds


def test_guards_differ_by_their_data_and_their_bound(task: Task) -> None:
    guards = [
        Guard(TextPerplexity("notes.txt", PROSE), 0.1),
        Guard(TextPerplexity("notes.txt", PROSE + "."), 0.1),
        Guard(TextPerplexity("notes.txt", PROSE), 0.2),
        Guard(TaskAccuracy(task), 0.1),
        Guard(TaskAccuracy(task, limit=5), 0.1),
    ]
    assert len({guard.fingerprint for guard in guards}) == len(guards)


# What it does in a run


@pytest.fixture
def measured_by_hand(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> Callable[[str], tuple[Measure, float, Callable[[RankReduction], float]]]:
    """Return a measure, the base's figure, and what gives the figure of an edit, by whole passes."""
    model = answering()

    def measure(kind: str) -> tuple[Measure, float, Callable[[RankReduction], float]]:
        others = other_task(task)
        scorer = text_scorer(model, small_tokenizer, PROSE, name="prose", anatomy=Anatomy.of(model))

        def read() -> float:
            if kind == "text":
                return scorer.evaluate().perplexity
            return strop.evaluate(model, small_tokenizer, others, split="select").accuracy

        def read_edited(edit: RankReduction) -> float:
            with applied_interventions(model, [edit]):
                return read()

        return TextPerplexity("prose", PROSE) if kind == "text" else TaskAccuracy(others), read(), read_edited

    return measure


@pytest.mark.parametrize("kind", ["text", "task"])
def test_the_best_that_holds_is_chosen_and_its_reading_is_in_the_result(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task: Task,
    tmp_path: Path,
    measured_by_hand: Callable[[str], tuple[Measure, float, Callable[[RankReduction], float]]],
    kind: str,
) -> None:
    measure, base, figure_of = measured_by_hand(kind)
    free = search(answering(), small_tokenizer, task, SEARCH)
    trials = sorted(free.trials, key=lambda trial: trial.merit, reverse=True)
    better = [trial for trial in trials if trial.merit > free.trials[0].merit]
    figures = [figure_of(edit) for trial in better if (edit := reduction_of(trial)) is not None]
    harms = [measure.harm(base, figure) for figure in figures]
    expected = next(index for index, harm in enumerate(harms) if harm < harms[0])  # the first refused, another holds
    bound = max(0.0, (harms[0] + harms[expected]) / 2)
    options = RunOptions(out=tmp_path / "run", guards=[Guard(measure, bound)])
    found = search(answering(), small_tokenizer, task, SEARCH, options)
    assert list(found.recipe.interventions) == [reduction_of(better[expected])]
    (reading,) = RunResult.read(tmp_path / "run" / "result.json").guards
    assert (reading.name, reading.bound, reading.unit) == (measure.name, bound, measure.unit)
    assert (reading.base, reading.edited) == pytest.approx((base, figures[expected]), rel=1e-4)
    assert reading.holds
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count(f"refused by the guard on {measure.name}: {measure.unit} ") == expected


def test_candidates_are_looked_at_only_as_they_would_win(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    free = search(answering(), small_tokenizer, task, SEARCH)
    better = sorted(
        (trial for trial in free.trials if trial.merit > free.trials[0].merit),
        key=lambda trial: trial.merit,
        reverse=True,
    )
    refused = [reduction_of(trial) for trial in better[:2]]
    scripted = Scripted(lambda edits: float(edits[-1] in refused) if edits else 0.0)
    options = RunOptions(guards=[Guard(scripted, 0.5)])
    found = search(answering(), small_tokenizer, task, SEARCH, options)
    assert len(better) > 3
    assert scripted.readings == [(), *((reduction_of(trial),) for trial in better[:3])]
    assert list(found.recipe.interventions) == [reduction_of(better[2])]


def test_where_all_are_refused_there_is_no_edit_and_the_first_broken_guard_ends_the_look(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    for run, plan in ((search, SEARCH), (prune, PRUNE), (train, TRAIN)):
        first, second = (Scripted(lambda edits: float(bool(edits)), fingerprint=name) for name in "ab")
        notes = Notes()
        options = RunOptions(guards=[Guard(first, 0.5), Guard(second, 0.5)], progress=notes)
        found = run(answering(), small_tokenizer, task, plan, options)
        assert found.recipe.interventions == ()
        assert found.result.edited == found.result.base
        assert [(r.base, r.edited, r.harm, r.holds) for r in found.result.guards] == [(0.0, 0.0, 0.0, True)] * 2
        assert second.readings == [()]
        assert len(first.readings) > 1
        assert any(line.startswith("refused by the guard on scripted: points 0 -> 1") for line in notes.lines)


def test_a_pruning_goes_as_far_as_its_guard_lets_it(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    """The rounds go on behind one that is refused, for a later one may hold again."""
    removed = lambda edits: sum(len(edit.removed) for edit in edits)  # noqa: E731
    free = prune(answering(), small_tokenizer, task, PRUNE)
    most = removed(free.recipe.interventions)
    scripted = Scripted(lambda edits: float(removed(edits)))
    found = prune(answering(), small_tokenizer, task, PRUNE, RunOptions(guards=[Guard(scripted, most - 1.0)]))
    assert removed(found.recipe.interventions) < most
    assert [trial.key for trial in found.trials] == [trial.key for trial in free.trials]
    (reading,) = found.result.guards
    assert reading.edited == removed(found.recipe.interventions)


def test_a_training_keeps_the_best_epoch_that_holds(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    free = train(answering(), small_tokenizer, task, TRAIN)
    epochs = [trial for trial in free.trials if trial.key.candidate]
    assert free.result.edited["select"] != free.result.base["select"]
    looked_at: list[int] = []

    def refuse_the_best(edits: tuple[Any, ...]) -> float:
        if not edits:
            return 0.0
        looked_at.append(len(looked_at))
        return float(looked_at[-1] == refused)

    best: Trial | None = None
    would_win = []
    for trial in epochs:
        if best is None or trial.merit > best.merit:
            best = trial
            would_win.append(trial)
    refused = len(would_win) - 1  # the last that would win is the best
    found = train(answering(), small_tokenizer, task, TRAIN, RunOptions(guards=[Guard(Scripted(refuse_the_best), 0.5)]))
    kept = [trial for trial in found.trials if trial.figures == found.result.edited["select"]]
    assert kept
    assert found.result.edited["select"] != free.result.edited["select"]
    assert all(reading.holds for reading in found.result.guards)


@pytest.mark.first(1)
@pytest.mark.parametrize(("run", "plan"), [(search, SEARCH), (prune, PRUNE), (train, TRAIN)])
def test_a_run_that_is_gone_on_with_repeats_no_reading(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task: Task,
    tmp_path: Path,
    run: Callable[..., Any],
    plan: Any,
) -> None:
    scripted = Scripted(lambda edits: 0.25 * len(edits))
    options = RunOptions(out=tmp_path / "run", guards=[Guard(scripted, 1e9)])
    first = run(answering(), small_tokenizer, task, plan, options)
    assert first.recipe.interventions
    count = len(scripted.readings)
    (tmp_path / "run" / "result.json").unlink()
    again = run(answering(), small_tokenizer, task, plan, dataclasses.replace(options, resume=True))
    assert len(scripted.readings) == count
    assert figures_of(again) == figures_of(first)
    other = dataclasses.replace(options, guards=[Guard(scripted, 0.5)], resume=True)
    with pytest.raises(StropError, match=r"began with plan\.guards = \['scripted 1e\+09'\], and now it is"):
        run(answering(), small_tokenizer, task, plan, other)


def test_what_a_run_begins_with_is_read_too_where_nothing_is_added(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, laser: Recipe
) -> None:
    scripted = Scripted(lambda edits: float(len(edits)))
    options = RunOptions(after=laser, guards=[Guard(scripted, 2.5)])  # the start holds, and one edit more does not
    found = search(answering(), small_tokenizer, task, SEARCH, options)
    assert found.recipe.interventions == laser.interventions
    assert json.loads(json.dumps(found.result.to_json()))["guards"] == [
        {
            "name": "scripted", "unit": "points", "base": 0.0, "edited": 2.0, "harm": 2.0, "bound": 2.5,
            "bound_unit": "points",
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"), [("int-mult:2%", "is a task, whose bound is written in points (int-mult:2)")]
)
def test_a_task_bounded_by_a_per_cent_sign_is_told_how_tasks_are_bounded(text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        Guard.parse(text)
    assert said in str(error.value)


def test_a_reading_that_is_not_finite_comes_back_from_a_file_as_one_that_does_not_hold() -> None:
    content = {"name": "t", "unit": "perplexity", "base": 3.0, "edited": None, "harm": None, "bound": 0.1}
    assert not GuardReading.from_json({**content, "bound_unit": "share"}).holds


def test_a_guard_on_other_text_is_refused_where_a_bias_holds_for_one_length_only(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    plan = PrunePlan(bias="position", fractions=(0.1,), iterate=1)
    for guard in (Guard.parse("drift:0.05"), Guard(TextPerplexity("notes", "Some words. " * 400), 0.1)):
        with pytest.raises(
            UsageError, match=rf"the guard on {guard.measure.name} reads other text; prune with --bias mean"
        ):
            prune(answering(), small_tokenizer, task, plan, RunOptions(guards=(guard,)))


@pytest.mark.parametrize("refused", [False, True])
def test_what_guards_say_is_known_once_one_has_refused_or_all_were_asked(refused: bool) -> None:
    figures = iter([0.0, 0.0, float(refused), 0.0])  # of the base, then of the candidate
    read: list[str] = []

    def reader(name: str) -> Callable[[], float]:
        return lambda: read.append(name) or next(figures)  # type: ignore[func-returns-value]

    study = Study(None, name="guards")
    bounds = [Guard(Scripted(lambda _: 0.0, fingerprint=name), 0.5) for name in "ab"]
    guards = Guards([(guard, reader(guard.measure.fingerprint)) for guard in bounds], study=study)
    guards.read_base()
    key = TrialKey("cut", "choice", 1, "select", 9, {"layer": 1})
    assert not guards.has_read(key)
    assert (guards.broken_by(key) is not None) is refused
    assert guards.has_read(key)
    assert read == (["a", "b", "a"] if refused else ["a", "b", "a", "b"])
    study.remember(f"guard a of {(other := dataclasses.replace(key, round=2)).text}", 0.0)
    assert not guards.has_read(other)
