"""Who builds on what a race has found: first what is cheap, sized by the prompts it reads."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.fixtures.entries import SHARE, entry
from tests.fixtures.recipes import EDITS

from strop.improving.building import builders
from strop.improving.pace import Pace
from strop.proving import Assignment, RunOptions
from strop.recipe import Recipe


@pytest.fixture
def given(tiny: Callable[..., Any], small_tokenizer: Any, many_facts: Callable[..., Any]) -> Assignment:
    return Assignment.of(tiny("llama"), small_tokenizer, many_facts(), RunOptions())


def test_a_sharpening_on_the_prompt_comes_first_and_knows_how_long_its_examples_are(given: Assignment) -> None:
    edits = Recipe.of(given.model, EDITS)
    judged = [entry("examples in the prompt", 0.2, tokens=90.0), entry("eigenpruning", 0.1, tokens=9.0, recipe=edits)]
    found = builders(judged, given, ("sharpen", "train"), tokens_per_example=9.0)
    names = [own.name for own, _ in found]
    assert names == ["sharpening on the prompt", "spectrum on eigenpruning", "LoReFT on eigenpruning"]
    first, asked = found[0]
    assert asked.task.shots is not None
    assert asked.task.shots.count == 8
    assert first.longer == pytest.approx(87 / 9)  # of 87 tokens, with eight others before it
    assert first.least_passes == pytest.approx(4 * 87 / 9)
    pace = Pace(seconds_per_example=0.01, tokens_per_example=9.0)
    assert first.size(SHARE, pace).train == 8  # of 10 s for eight steps; of plain examples 31
    for _, other in found[1:]:
        assert other.start.interventions == EDITS


def test_who_is_not_asked_for_does_not_build(given: Assignment) -> None:
    judged = [entry("examples in the prompt", 0.2, tokens=90.0)]
    assert builders(judged, given, ("train",), tokens_per_example=9.0) == []
