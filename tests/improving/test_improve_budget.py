"""A race keeps its budget on a machine that becomes slower: what is set aside for the proof follows how long everything takes."""

import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.fixtures.runs import Notes
from transformers import GenerationMixin

from strop.improving import ImprovePlan, improve
from strop.improving.foresight import RaceForesight
from strop.improving.pace import DRIFT, EXAMPLES, Pace, Tempo, asked
from strop.improving.prompts import scorer_with
from strop.improving.reserve import Proof, Reserve
from strop.proving import Assignment, Budget, RunOptions, RunOutcome
from strop.scoring import DriftScorer, Scorer
from strop.searching.sharpening.sharpener import Sharpener

MEASURED = Pace.__dict__["measured"]
TOKEN_SECONDS, STEP_SECONDS, DRIFT_SECONDS = 0.003, 0.1, 12.0
SECONDS = 300.0


class Machine:
    """A clock that goes on by what is read alone, and from some moment on faster."""

    def __init__(self, *, slower_from: float, times: float) -> None:
        self._slower_from, self._times = slower_from, times
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1e-6
        return self.now

    def work(self, seconds: float) -> None:
        """Let some work be done that takes so long where the machine is as fast as at first."""
        fast = max(0.0, min(seconds, self._slower_from - self.now))
        self.now += fast + (seconds - fast) * self._times


@pytest.fixture
def on_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Machine]:
    """What lets a race run by the clock of a machine that takes its time over every token it reads."""

    def start(*, slower_from: float, times: float) -> Machine:
        machine = Machine(slower_from=slower_from, times=times)
        evaluate, read, begin = Scorer.evaluate, DriftScorer.read, DriftScorer.__init__
        tokens = Scorer.tokens.fget
        gradient, generate = Sharpener._gradient, GenerationMixin.generate

        def evaluating(self: Scorer, **settings: Any) -> Any:
            machine.work(TOKEN_SECONDS * self.tokens)
            return evaluate(self, **settings)

        def reading(self: DriftScorer) -> Any:
            machine.work(DRIFT_SECONDS)
            return read(self)

        def beginning(self: DriftScorer, *given: Any, **settings: Any) -> None:
            begin(self, *given, **settings)
            machine.work(DRIFT_SECONDS)

        def asking(self: Sharpener, *given: Any) -> Any:
            machine.work(4 * TOKEN_SECONDS * self.guide.select.tokens * self.plan.examples / self.plan.select_limit)
            return gradient(self, *given)

        def generating(self: Any, *given: Any, **settings: Any) -> Any:
            machine.work(STEP_SECONDS * self.generation_config.max_new_tokens)
            return generate(self, *given, **settings)

        monkeypatch.setattr(Pace, "measured", MEASURED)
        monkeypatch.setattr(Scorer, "tokens", property(lambda self: 8 * tokens(self)))
        monkeypatch.setattr(Scorer, "evaluate", evaluating)
        monkeypatch.setattr(DriftScorer, "read", reading)
        monkeypatch.setattr(DriftScorer, "__init__", beginning)
        monkeypatch.setattr(Sharpener, "_gradient", asking)
        monkeypatch.setattr(GenerationMixin, "generate", generating)
        monkeypatch.setattr(time, "monotonic", machine)
        monkeypatch.setattr(sys.modules["strop.improving.improve"], "FEWEST_PROVED", 20)
        return machine

    return start


@pytest.fixture
def improved(
    answering: Callable[..., Any], small_tokenizer: Any, many_facts: Callable[..., Any]
) -> Callable[[ImprovePlan, RunOptions], RunOutcome]:
    """Improves a small model at small facts."""
    return lambda plan, options: improve(answering(), small_tokenizer, many_facts(), plan, options)


@pytest.mark.parametrize("slower_from", [1e9, 60.0, 110.0, 150.0, 190.0])
@pytest.mark.parametrize("families", [("sharpen",), ("prompt", "sharpen")])
def test_a_machine_that_becomes_twice_as_slow_midway_keeps_the_budget(
    slower_from: float, families: Any, improved: Callable[..., RunOutcome], on_machine: Callable[..., Machine]
) -> None:
    machine = on_machine(slower_from=slower_from, times=2.0)
    options = RunOptions(budget=Budget(seconds=SECONDS), rivals=False)
    improved(ImprovePlan(families=families), options)
    assert machine.now <= 1.05 * SECONDS


def test_a_proof_that_no_longer_fits_reads_fewer_examples_and_says_so(
    improved: Callable[..., RunOutcome], on_machine: Callable[..., Machine]
) -> None:
    on_machine(slower_from=100.0, times=4.0)
    notes = Notes()
    options = RunOptions(budget=Budget(seconds=SECONDS), progress=notes)
    found = improved(ImprovePlan(families=("sharpen",)), options)
    count = found.result.base["test"].count
    assert [line for line in notes.lines if line.startswith(f"there is time for {count} of ")]
    assert found.result.task.counts["test"] == count


@pytest.mark.rivals
def test_a_rival_there_is_no_time_for_is_left_out_and_named(
    improved: Callable[..., RunOutcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    tempo = Tempo(Pace(0.1, 10.0), budget_seconds=100.0)
    tempo.note(asked(5), 10, 5.0)
    reserve = Reserve(tempo, Proof(examples=90, fewest=20), budget_seconds=100.0)
    assert reserve.room_for_rival(5, seconds=88.0) == pytest.approx(20.0)
    assert reserve.room_for_rival(5, seconds=120.0) == 0.0
    monkeypatch.setattr(RaceForesight, "room_for_rival", lambda self, shots: {1: 1e6, 5: 3.0}[shots])
    plan, options = (
        ImprovePlan(families=("sharpen",), select_limit=20, test_limit=20),
        RunOptions(budget=Budget(seconds=10_000)),
    )
    rivals = improved(plan, options).result.rivals
    assert rivals is not None
    assert set(rivals.measured) == {"constant", "shots_1"}
    assert rivals.skipped == {"shots_5": "there was no time left for it; give a longer --time-limit."}


def test_a_test_limit_that_was_asked_for_holds_on_a_slow_machine(
    improved: Callable[..., RunOutcome], on_machine: Callable[..., Machine]
) -> None:
    on_machine(slower_from=100.0, times=4.0)
    plan = ImprovePlan(families=("sharpen",), test_limit=80)
    options = RunOptions(budget=Budget(seconds=SECONDS), rivals=False)
    assert improved(plan, options).result.base["test"].count == 80


def test_what_was_read_last_and_longest_counts_most() -> None:
    tempo = Tempo(Pace(0.1, 10.0), budget_seconds=1000.0)
    tempo.note(DRIFT, 1, 5.0)  # the first of a kind says how much it is, not how fast the machine is
    assert tempo.slowness == 1.0
    tempo.note(EXAMPLES, 1, 10.0)  # too little to tell anything
    assert tempo.slowness < 2.0
    for _ in range(5):
        tempo.note(EXAMPLES, 100, 20.0)
    assert tempo.slowness == pytest.approx(2.0, abs=0.05)
    assert tempo.foresee(DRIFT, 2) == pytest.approx(20.0, rel=0.05)
    assert tempo.pace.seconds_per_example == pytest.approx(0.2, rel=0.05)
    tempo.note(DRIFT, 1, 5.0)
    assert tempo.slowness < 1.8


def test_a_kind_that_was_timed_roughly_is_timed_anew() -> None:
    tempo = Tempo(Pace(0.1, 10.0), budget_seconds=100.0)
    tempo.note("asked with 5", 16, 8.0, roughly=True)
    assert tempo.foresee("asked with 5", 10) == pytest.approx(5.0)
    tempo.note("asked with 5", 100, 20.0)
    assert (tempo.slowness, tempo.foresee("asked with 5", 10)) == (1.0, pytest.approx(2.0))


def test_edits_on_a_prompt_are_judged_as_they_are_proved(
    knowing: Callable[[], Any], small_tokenizer: Any, many_facts: Callable[..., Any]
) -> None:
    given = Assignment.of(knowing(), small_tokenizer, many_facts(), RunOptions())
    alone, edited = (scorer_with(given, 5, 20, edited=own) for own in (False, True))
    assert alone._prefix is not None
    assert edited._prefix is None
