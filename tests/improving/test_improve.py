"""A race of methods: the better half goes on, all are judged on as many examples, and only what is sure is chosen."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.runs import Interrupting, Notes, evaluated

from strop.errors import DecompositionError, NotFiniteError, UsageError
from strop.improving import ImprovePlan, contenders, improve, preparing
from strop.improving.contenders import LEAST_EPOCHS
from strop.improving.plan import EFFORTS, Effort, Round
from strop.interventions import attachments_of
from strop.proving import Budget, Guard, RunOptions
from strop.recipe import Recipe, applied
from strop.report import write_report
from strop.runs import Leaderboard, RunResult
from strop.scoring import DriftScorer, Scorer
from strop.training.fitter import Fitter
from strop.training.watch import Watch

AMPLE = Budget(seconds=10_000)
PRUNED = ImprovePlan(preset="good", families=("prune",), select_limit=60, drift=None)


def test_what_is_surely_better_is_chosen_and_proved_once(
    spoilt: Callable[..., Any], small_tokenizer: Any, many_facts: Callable[..., Any], tmp_path: Path
) -> None:
    model, task = spoilt(), many_facts()
    found = improve(model, small_tokenizer, task, PRUNED, RunOptions(out=tmp_path / "run", budget=AMPLE))
    assert found.result.command == "improve"
    assert found.leaderboard is not None
    first = found.leaderboard.chosen
    assert (first.name, first.state, first.family) == ("eigenpruning", "chosen", "prune")
    assert first.comparison is not None
    assert first.comparison.ci95[0] > 0
    assert first.test == found.result.comparison["test"]
    assert first.select is not None
    assert first.select.count == 60
    assert found.result.comparison["test"].ci95[0] > 0
    again = evaluated(model, small_tokenizer, Recipe.load(tmp_path / "run" / "recipe"), task)
    assert again.accuracy == found.result.edited["test"].accuracy
    assert Leaderboard.read(tmp_path / "run" / "leaderboard.json") == found.leaderboard
    assert RunResult.read(tmp_path / "run" / "result.json").to_json() == found.result.to_json()
    assert found.leaderboard.decision.startswith("Eigenpruning is chosen: +")
    written = write_report(tmp_path / "run", out=tmp_path / "report.md", format="md")
    assert written.missing == ()
    assert written.verdicts == ("Better, beyond chance",)
    text = (tmp_path / "report.md").read_text(encoding="utf-8").replace("\\", "")
    shown = [line.removeprefix("### ") for line in text.splitlines() if line.startswith("### ")]
    assert shown == [
        "Leaderboard", "Gain", "Rivals", "Price and guards", "Examples", "Edited matrices", "The race", "Cost", "To repeat it",
    ]  # fmt: skip
    assert found.leaderboard.decision in text
    assert "| candidate | round 1, 50 examples | round 2, 50 examples | round 3, 60 examples |" in text
    before, after = (100 * own["select"].accuracy for own in (found.result.base, found.result.edited))
    assert f"eigenpruning stands best, at {after:.3g} % right; no edit is at {before:.3g}." in text


@pytest.mark.first(1)
@pytest.mark.parametrize("seed", range(2))
def test_where_there_is_nothing_to_know_the_model_stays_as_it_is(
    seed: int, answering: Callable[..., Any], small_tokenizer: Any, many_facts: Callable[..., Any]
) -> None:
    plan = ImprovePlan(families=("sharpen", "laser"), select_limit=60)
    found = improve(answering(), small_tokenizer, many_facts(shuffled=seed), plan, RunOptions(budget=AMPLE))
    assert found.result.interventions == ()
    assert found.leaderboard is not None
    assert found.leaderboard.chosen.name == "no edit"
    assert found.leaderboard.decision.startswith("The model stays as it is. The best that was tried is ")


def test_all_of_a_round_are_judged_on_as_many_examples_and_half_go_on(
    spoilt: Callable[..., Any], small_tokenizer: Any, many_facts: Callable[..., Any]
) -> None:
    notes = Notes()
    plan = dataclasses.replace(PRUNED, families=("laser", "sharpen", "prune"), select_limit=120)
    found = improve(spoilt(), small_tokenizer, many_facts(), plan, RunOptions(budget=AMPLE, progress=notes))
    assert [line for line in notes.lines if line.startswith("round ")] == [
        "round 1 of 3: 4 in the running, 50 select examples",
        "round 2 of 3: 2 in the running, 60 select examples",
        "round 3 of 3: 2 in the running, 120 select examples",
    ]
    assert found.leaderboard is not None
    judged = {own.name: own.select.count for own in found.leaderboard.standings if own.select is not None}
    assert sorted(judged.values()) == [50, 50, 120, 120, 120]
    states = {own.name: own.state for own in found.leaderboard.standings}
    assert {name for name, state in states.items() if state == "stopped"} == {
        name for name, count in judged.items() if count == 50
    }
    left = {name for name, state in states.items() if state == "left out"}
    assert {"spectrum", "bias", "LoReFT", "LoRA", "examples in the prompt"} <= left


@pytest.mark.thorough
def test_a_run_that_is_stopped_anywhere_ends_as_it_would_have(
    spoilt: Callable[..., Any], small_tokenizer: Any, many_facts: Callable[..., Any], tmp_path: Path
) -> None:
    plan = dataclasses.replace(PRUNED, preset="quick", families=("sharpen", "laser", "train"), select_limit=30)
    task = many_facts()
    whole = improve(spoilt(), small_tokenizer, task, plan, RunOptions(out=tmp_path / "whole", budget=AMPLE))
    options = RunOptions(out=tmp_path / "run", budget=AMPLE, resume=True)
    for step in (3, 40, 25, 20):
        interrupted = dataclasses.replace(options, progress=Interrupting(step))
        with pytest.raises(KeyboardInterrupt):
            improve(spoilt(), small_tokenizer, task, plan, interrupted)
        assert not (tmp_path / "run" / "result.json").exists()
    found = improve(spoilt(), small_tokenizer, task, plan, options)
    assert found.recipe == whole.recipe
    assert found.leaderboard is not None
    assert whole.leaderboard is not None
    assert [own.name for own in found.leaderboard.standings] == [own.name for own in whole.leaderboard.standings]
    assert [own.select for own in found.leaderboard.standings] == [own.select for own in whole.leaderboard.standings]
    read = improve(spoilt(), small_tokenizer, task, plan, options)
    assert read.leaderboard == found.leaderboard


def test_the_leaderboard_and_the_best_so_far_are_there_while_it_runs(
    spoilt: Callable[..., Any], small_tokenizer: Any, many_facts: Callable[..., Any], tmp_path: Path
) -> None:
    class Looking(Notes):
        def note(self, line: str) -> None:
            super().note(line)
            if line.startswith("round 3"):
                board = Leaderboard.read(tmp_path / "run" / "leaderboard.json")
                self.names = {own.name for own in board.standings if own.state == "tried"}
                self.best = Recipe.load(tmp_path / "run" / "best")

    looking = Looking()
    options = RunOptions(out=tmp_path / "run", budget=AMPLE, progress=looking)
    improve(spoilt(), small_tokenizer, many_facts(), PRUNED, options)
    assert looking.names == {"eigenpruning", "no edit"}
    assert looking.best.interventions


def test_a_classifier_learns_and_says_who_is_left_out(
    tiny_classifier: Callable[..., Any], small_tokenizer: Any, cities: Callable[..., Path]
) -> None:
    found = improve(tiny_classifier("roberta"), small_tokenizer, cities(), None, RunOptions(budget=AMPLE))
    assert found.leaderboard is not None
    by_name = {own.name: own for own in found.leaderboard.standings}
    assert by_name["examples in the prompt"].why == "it is for models that write, and this task has labels."
    assert by_name["LASER"].select is not None
    assert found.leaderboard.chosen.name == "spectrum"
    assert found.recipe.head is not None
    assert not by_name["spectrum"].bakeable
    assert by_name["spectrum"].drift is None


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # of PEFT
def test_a_lora_that_wins_is_saved_as_an_adapter(
    answering: Callable[..., Any], small_tokenizer: Any, many_facts: Callable[..., Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    peft = pytest.importorskip("peft")
    monkeypatch.setitem(EFFORTS, "quick", Effort(300.0, 100, (Round(1.0, 1.0),), ("LoRA",)))
    monkeypatch.setitem(LEAST_EPOCHS, True, 25)
    monkeypatch.setattr(contenders, "MOST_EPOCHS", 25)
    task, plan = many_facts(), ImprovePlan(drift=None)
    found = improve(answering(), small_tokenizer, task, plan, RunOptions(out=tmp_path / "run", budget=AMPLE))
    assert found.leaderboard is not None
    assert found.leaderboard.chosen.name == "LoRA"
    assert found.leaderboard.chosen.bakeable
    adapted = peft.PeftModel.from_pretrained(answering(), tmp_path / "run" / "adapter").eval()
    ids = torch.tensor([small_tokenizer("The city of Lyon7 is in")["input_ids"]])
    edited = answering()
    with torch.no_grad(), applied(edited, found.recipe):
        expected = edited(ids).logits
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).logits, expected, atol=1e-4, rtol=1e-4)


def test_what_cannot_be_tried_is_said(
    answering: Callable[..., Any], small_tokenizer: Any, many_facts: Callable[..., Any]
) -> None:
    notes = Notes()
    plan = ImprovePlan(families=("train", "laser", "prompt"), select_limit=20)
    without = many_facts(train=False)
    found = improve(answering(), small_tokenizer, without, plan, RunOptions(budget=AMPLE, progress=notes))
    assert found.leaderboard is not None
    reason = "the task has no train split; give it a share under splits: in the task file."
    assert f"left out: spectrum: {reason}" in notes.lines
    assert {own.name: own.why for own in found.leaderboard.standings}["spectrum"] == reason
    with pytest.raises(
        UsageError, match="Nothing is left to try for task many-facts: spectrum: the task has no train split"
    ):
        improve(answering(), small_tokenizer, without, ImprovePlan(families=("train",)), RunOptions(budget=AMPLE))
    with pytest.raises(
        UsageError, match=r"^The preset quick has nothing of the families prune .*: take --preset good,"
    ):
        improve(answering(), small_tokenizer, without, ImprovePlan(families=("prune",)), RunOptions(budget=AMPLE))


def test_a_budget_too_small_for_anything_leaves_the_model_as_it_is_and_says_why(
    answering: Callable[..., Any], small_tokenizer: Any, many_facts: Callable[..., Any]
) -> None:
    options = RunOptions(budget=Budget(seconds=0.01))
    found = improve(answering(), small_tokenizer, many_facts(), ImprovePlan(), options)
    assert found.result.interventions == ()
    assert found.leaderboard is not None
    assert found.leaderboard.decision == (
        "The model stays as it is: no time was left for anything, for loading, preparing and measuring take longer than the "
        "budget of 0.01 s."
    )
    assert found.result.comparison["test"].gain == 0


def test_a_guard_that_nothing_holds_leaves_the_model_as_it_is(
    answering: Callable[..., Any], small_tokenizer: Any, many_facts: Callable[..., Any]
) -> None:
    options = RunOptions(budget=AMPLE, guards=(Guard.parse("drift:0.000001"),))
    plan = dataclasses.replace(PRUNED, drift=0.05)
    found = improve(answering(), small_tokenizer, many_facts(), plan, options)
    assert found.result.interventions == ()
    assert [reading.bound for reading in found.result.guards] == [0.000001]


def test_a_guard_on_a_text_that_the_base_itself_cannot_read_is_told_before_anything_is_tried(
    answering: Callable[..., Any], small_tokenizer: Any, many_facts: Callable[..., Any], tmp_path: Path
) -> None:
    model, notes = answering(), tmp_path / "notes.txt"
    notes.write_text("Ω is a letter. " * 40, encoding="utf-8")
    with torch.no_grad():
        model.get_input_embeddings().weight[small_tokenizer("Ω")["input_ids"][0]] = torch.nan
    options = RunOptions(budget=AMPLE, guards=(Guard.parse(f"{notes}:2%"),), progress=(said := Notes()))
    with pytest.raises(NotFiniteError, match="the model's probabilities are not finite; load it in float32"):
        improve(model, small_tokenizer, many_facts(), dataclasses.replace(PRUNED, drift=None), options)
    assert not [line for line in said.lines if line.startswith("round ")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "slow"}, "preset is one of quick, good, best, not 'slow'."),
        ({"families": ("train", "lasr")}, "families (--families) are among sharpen, laser, prune, train, prompt, not 'lasr'."),
        ({"families": ()}, "families (--families) is empty; leave it out for all."),
        ({"select_limit": 0}, "select_limit is 1 or more, not 0."),
        ({"drift": -1.0}, "drift is above 0, in nats per token, not -1."),
        ({"seed": -1}, "seed is 0 or more, not -1."),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        ImprovePlan(**changes)
    assert str(refused.value) == message


def test_a_large_test_split_is_measured_by_a_sample_that_fits_the_budget(
    answering: Callable[..., Any], small_tokenizer: Any, many_facts: Callable[..., Any], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr(sys.modules["strop.improving.improve"], "FEWEST_PROVED", 10)
    options = RunOptions(out=tmp_path / "run", budget=Budget(seconds=0.05), rivals=False)
    found = improve(answering(), small_tokenizer, many_facts(), ImprovePlan(), options)
    limit = json.loads((tmp_path / "run" / "config.json").read_text())["plan"]["test_limit"]
    assert 10 <= limit < 90
    assert 10 <= found.result.base["test"].count <= limit  # fewer, where the machine has become slower
    again = improve(
        answering(), small_tokenizer, many_facts(), ImprovePlan(), dataclasses.replace(options, resume=True)
    )
    assert again.result.to_json() == found.result.to_json()


def test_drift_is_read_once_of_a_proposal_and_the_base_scored_once_a_round(
    spoilt: Callable[..., Any], small_tokenizer: Any, many_facts: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    edited: list[bool] = []
    plain: list[int] = []
    read, evaluate = DriftScorer.read, Scorer.evaluate

    def reading(self: DriftScorer) -> Any:
        edited.append(bool(attachments_of(self._model)))
        return read(self)

    def evaluating(self: Scorer, **settings: Any) -> Any:
        if not attachments_of(self.model):
            plain.append(self.example_count)
        return evaluate(self, **settings)

    monkeypatch.setattr(DriftScorer, "read", reading)
    monkeypatch.setattr(Scorer, "evaluate", evaluating)
    plan = ImprovePlan(preset="good", families=("sharpen",), select_limit=120, test_limit=30, drift=5.0)
    found = improve(spoilt(), small_tokenizer, many_facts(), plan, RunOptions(budget=AMPLE, rivals=False))
    assert found.leaderboard is not None
    assert [own.select.count for own in found.leaderboard.standings if own.name == "sharpening" and own.select] == [120]
    assert sorted(plain) == [30, 50, 60, 120]  # 30 is the look at test
    steps = sum(trial.key.method == "sharpen" for trial in found.trials)
    assert len(edited) <= steps  # neither a proposal that is judged nor the price of the choice is read again


def test_all_rounds_count_for_what_was_tried(
    answering: Callable[..., Any], small_tokenizer: Any, many_facts: Callable[..., Any], tmp_path: Path
) -> None:
    plan = ImprovePlan(families=("sharpen",), select_limit=40, test_limit=30)
    options = RunOptions(out=tmp_path / "run", budget=AMPLE)
    found = improve(answering(), small_tokenizer, many_facts(shuffled=0), plan, options)
    tried = sum(trial.key.stage.startswith("sharpening by signs ") for trial in found.trials)
    rounds = {trial.key.stage for trial in found.trials if trial.key.stage.startswith("sharpening by signs ")}
    assert found.leaderboard is not None
    assert len(rounds) == 2
    assert found.leaderboard.decision.endswith(f"the best of {tried} tried).")


def test_what_learns_goes_on_from_what_it_found_before(
    answering: Callable[..., Any], small_tokenizer: Any, many_facts: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[bool, int]] = []
    init = Fitter.__init__

    def noting(self: Fitter, given: Any, plan: Any, *, goes_on: bool = False) -> None:
        begun.append((goes_on, len(given.start.interventions)))
        init(self, given, plan, goes_on=goes_on)

    monkeypatch.setattr(Fitter, "__init__", noting)
    effort = Effort(300.0, 100, (Round(0.5, 0.5), Round(1.0, 0.5)), ("spectrum",))
    monkeypatch.setitem(EFFORTS, "quick", effort)
    notes = Notes()
    plan = ImprovePlan(families=("train",), select_limit=60, drift=None)
    found = improve(answering(), small_tokenizer, many_facts(), plan, RunOptions(budget=AMPLE, progress=notes))
    assert begun[0] == (False, 0)
    assert begun[1][0]
    assert begun[1][1] > 0
    assert any(line.startswith("spectrum: 6 more epochs of 90 examples") for line in notes.lines)
    [start] = [trial for trial in found.trials if trial.key.method == "start"]
    [carried] = [trial for trial in found.trials if trial.key.candidate.get("carried")]
    assert (start.figures, start.evaluations) == (carried.figures, 0)


def test_near_a_bound_what_learns_on_goes_more_slowly(
    answering: Callable[..., Any], small_tokenizer: Any, many_facts: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    effort = Effort(300.0, 100, (Round(0.5, 0.5), Round(1.0, 0.5)), ("spectrum",))
    monkeypatch.setitem(EFFORTS, "quick", effort)
    for bound, words in ((0.002, "kept to the base, 3 times as slowly"), (50.0, "kept to the base")):
        notes = Notes()
        plan = ImprovePlan(families=("train",), select_limit=60, drift=bound)
        improve(answering(), small_tokenizer, many_facts(), plan, RunOptions(budget=AMPLE, progress=notes))
        [second] = [line for line in notes.lines if line.startswith("spectrum: 6 more epochs of 90 examples")]
        assert second.split(", ", 1)[1].startswith(words)
        assert ("slowly" in second) == (bound < 1)
        assert any("% of " in line for line in notes.lines) == (bound < 1)


def test_what_all_need_is_made_before_the_race(
    answering: Callable[..., Any], small_tokenizer: Any, many_facts: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = Notes()
    for name in ("fisher_information", "KeepToBase"):
        real = getattr(preparing, name)

        def noting(*positional: Any, _name: str = name, _real: Any = real, **named: Any) -> Any:
            notes.lines.append(_name)
            return _real(*positional, **named)

        monkeypatch.setattr(preparing, name, noting)
    plan = ImprovePlan(preset="good", families=("sharpen", "train"), select_limit=60)
    improve(answering(), small_tokenizer, many_facts(), plan, RunOptions(budget=Budget(seconds=60), progress=notes))
    first = next(place for place, line in enumerate(notes.lines) if line.startswith("round 1 "))
    assert notes.lines[first - 2 : first] == ["fisher_information", "KeepToBase"]


def test_what_cannot_be_made_before_the_race_leaves_out_who_needs_it_alone(
    spoilt: Callable[..., Any], small_tokenizer: Any, many_facts: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: Any, **__: Any) -> Any:
        raise DecompositionError("The gradient is not finite.")

    monkeypatch.setattr(preparing, "fisher_information", refusing)
    monkeypatch.setattr("strop.searching.sharpening.guides.fisher_information", refusing)
    notes = Notes()
    plan = ImprovePlan(preset="good", families=("sharpen", "laser"), select_limit=60)
    found = improve(spoilt(), small_tokenizer, many_facts(), plan, RunOptions(budget=AMPLE, progress=notes))
    assert "before the race: The gradient is not finite" in notes.lines
    assert found.leaderboard is not None
    states = {own.name: (own.state, own.why) for own in found.leaderboard.standings}
    assert states["sharpening"] == ("left out", "The gradient is not finite")
    assert states["LASER"][0] in ("tried", "chosen")


def test_where_there_is_no_time_to_decompose_all_matrices_only_who_needs_none_races(
    answering: Callable[..., Any], small_tokenizer: Any, many_facts: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "_decompose", lambda *_, **__: False)
    plan = ImprovePlan(preset="good", families=("sharpen", "laser", "train"), select_limit=60)
    found = improve(answering(), small_tokenizer, many_facts(), plan, RunOptions(budget=AMPLE, rivals=False))
    assert found.leaderboard is not None
    why = {own.name: own.why for own in found.leaderboard.standings if own.state == "left out"}
    lacking = {name for name, reason in why.items() if reason == preparing.NO_DECOMPOSITIONS}
    assert lacking == {"sharpening", "spectrum", "LASER", "LASER, composed"}
    assert {own.name for own in found.leaderboard.standings} - set(why) >= {"LoReFT", "bias", "no edit"}


def test_who_learns_on_in_vain_keeps_what_it_had(
    answering: Callable[..., Any], small_tokenizer: Any, many_facts: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    effort = Effort(300.0, 100, (Round(0.5, 0.5), Round(1.0, 0.5)), ("spectrum",))
    monkeypatch.setitem(EFFORTS, "quick", effort)
    measured = Watch._measured

    def measuring(self: Watch, moment: Any) -> Any:
        trial = measured(self, moment)
        return dataclasses.replace(trial, accuracy=0.0) if self._journal.begins_with else trial

    monkeypatch.setattr(Watch, "_measured", measuring)  # nothing beats what it begins with
    notes = Notes()
    plan = ImprovePlan(families=("train",), select_limit=60, drift=None)
    found = improve(answering(), small_tokenizer, many_facts(), plan, RunOptions(budget=AMPLE, progress=notes))
    assert found.leaderboard is not None
    [own] = [own for own in found.leaderboard.standings if own.name == "spectrum"]
    assert "spectrum: nothing better than what it had found" in notes.lines
    assert own.parameters > 0
    assert "more" not in own.setting
