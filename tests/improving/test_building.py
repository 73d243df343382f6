"""Who builds on what a race has found: first what is cheap, sized by the prompts it reads."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from tests.fixtures.entries import SHARE, entry
from tests.fixtures.recipes import EDITS

from strop.improving import ImprovePlan, improve
from strop.improving.building import builders
from strop.improving.contenders import CONTENDERS
from strop.improving.entry import Found
from strop.improving.keeping import Kept
from strop.improving.pace import Pace
from strop.improving.preparing import Prepared, texts_of
from strop.proving import Assignment, Budget, RunOptions
from strop.recipe import Recipe

READY = Prepared(texts=128, decomposed=True, done_at_seconds=1.0)


@pytest.fixture
def given(tiny: Callable[..., Any], small_tokenizer: Any, many_facts: Callable[..., Any]) -> Assignment:
    return Assignment.of(tiny("llama"), small_tokenizer, many_facts(), RunOptions())


def test_a_sharpening_on_the_prompt_comes_first_and_knows_how_long_its_examples_are(given: Assignment) -> None:
    edits = Recipe.of(given.model, EDITS)
    judged = [entry("examples in the prompt", 0.2, tokens=90.0), entry("eigenpruning", 0.1, tokens=9.0, recipe=edits)]
    found = builders(judged, given, ("sharpen", "train"), prepared=READY, tokens_per_example=9.0)
    names = [own.name for own in found]
    assert names == ["sharpening on the prompt", "spectrum on eigenpruning", "LoReFT on eigenpruning"]
    first, asked = found[0].contender, found[0].given
    assert asked.task.shots is not None
    assert asked.task.shots.count == 8
    assert [own.on for own in found] == [judged[0], judged[1], judged[1]]
    assert first.longer == pytest.approx(87 / 9)  # of 87 tokens, with eight others before it
    assert first.least_passes == pytest.approx(2.5 * 87 / 9)
    pace = Pace(seconds_per_example=0.01, tokens_per_example=9.0)
    assert first.size(SHARE, pace).train == 8  # of 10 s for eight steps; of plain examples 31
    for own in found[1:]:
        assert own.given.start.interventions == EDITS


def test_who_leads_and_learns_goes_on_before_others_build_on_it(given: Assignment) -> None:
    judged = [entry("spectrum", 0.2, tokens=9.0, recipe=Recipe.of(given.model, EDITS))]
    found = builders(judged, given, ("sharpen", "train"), prepared=READY, tokens_per_example=9.0)
    assert [own.name for own in found] == ["spectrum", "LoReFT on spectrum"]
    assert (found[0].given, found[0].on) == (given, None)
    assert found[0].contender.least_passes < judged[0].contender.least_passes


def test_who_is_not_asked_for_does_not_build(given: Assignment) -> None:
    judged = [entry("examples in the prompt", 0.2, tokens=90.0)]
    assert builders(judged, given, ("train",), prepared=READY, tokens_per_example=9.0) == []


def test_who_reads_texts_that_were_never_written_does_not_build(given: Assignment) -> None:
    judged, needed = (
        [entry("eigenpruning", 0.1, tokens=9.0, recipe=Recipe.of(given.model, EDITS))],
        texts_of(CONTENDERS["spectrum"]),
    )
    assert (
        builders(
            judged, given, ("train",), prepared=dataclasses.replace(READY, texts=needed - 1), tokens_per_example=9.0
        )
        == []
    )
    assert (
        len(
            builders(
                judged, given, ("train",), prepared=dataclasses.replace(READY, texts=needed), tokens_per_example=9.0
            )
        )
        == 2
    )


def test_who_needs_decompositions_that_there_was_no_time_for_does_not_build(given: Assignment) -> None:
    edits = Recipe.of(given.model, EDITS)
    judged = [entry("examples in the prompt", 0.2, tokens=90.0), entry("eigenpruning", 0.1, tokens=9.0, recipe=edits)]
    some = dataclasses.replace(READY, decomposed=False)
    found = builders(judged, given, ("sharpen", "train"), prepared=some, tokens_per_example=9.0)
    assert [own.name for own in found] == ["LoReFT on eigenpruning"]


def test_what_builds_counts_what_it_builds_on_among_the_tried(
    answering: Callable[..., Any], small_tokenizer: Any, many_facts: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Found] = {}
    keep = Kept.keep_found

    def keeping(self: Kept, name: str, number: int, own: Found) -> None:
        found[name] = own
        keep(self, name, number, own)

    monkeypatch.setattr(Kept, "keep_found", keeping)
    plan = ImprovePlan(families=("prompt", "sharpen"), select_limit=60, test_limit=30)
    options = RunOptions(budget=Budget(seconds=10_000), rivals=False)
    trials = improve(answering(), small_tokenizer, many_facts(), plan, options).trials
    name = "sharpening on the prompt"
    own = [trial for trial in trials if trial.key.stage.startswith(f"{name} ") and trial.key.method == "sharpen"]
    assert own
    assert found[name].tried == len(own) + found["examples in the prompt"].tried
