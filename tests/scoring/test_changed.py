"""Which answers an edit changed: the examples that turned, with what each model answers to them."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import strop
from strop.anatomy import MatrixType, WeightSite
from strop.errors import UsageError
from strop.interventions import RankReduction
from strop.recipe import Recipe, applied
from strop.scoring import Evaluation, changed_answers, refuse_changed
from strop.tasks import Example, Task

MATRICES = [
    RankReduction(WeightSite(layer, matrix), 0.1) for layer in (0, 1, 2) for matrix in (MatrixType.UP, MatrixType.VALUE)
]


@pytest.fixture
def turned(knowing: Callable[[], Any], small_tokenizer: Any) -> Callable[[Task], Any]:
    """A model that knows the answers, a recipe that makes it forget, and both evaluations of a task's test split."""

    def evaluate(task: Task) -> tuple[Any, Recipe, tuple[Evaluation, Evaluation]]:
        model = knowing()
        recipe = Recipe.of(model, MATRICES)
        before = strop.evaluate(model, small_tokenizer, task)
        with applied(model, recipe):
            after = strop.evaluate(model, small_tokenizer, task)
        return model, recipe, (before, after)

    return evaluate


@pytest.mark.parametrize("score", ["exact", "first_token", "choice"])
def test_examples_that_turned_are_shown_with_both_answers(
    turned: Callable[[Task], Any], small_tokenizer: Any, task_scored_by: Callable[[str], Task], score: str
) -> None:
    task = task_scored_by(score)
    model, recipe, both = turned(task)
    examples = task.examples("test")
    on = functools.partial(applied, model, recipe)
    found = changed_answers(model, small_tokenizer, examples, both, after=on, most=2)
    wrong_now = [index for index in range(24) if both[0].correct[index] and not both[1].correct[index]]
    assert wrong_now, "the fixture is no test: the recipe breaks nothing"
    assert found.broken_count == len(wrong_now)
    assert [each.prompt for each in found.broken] == [examples[index].prompt for index in wrong_now[:2]]
    for each, index in zip(found.broken, wrong_now, strict=False):
        assert each.wanted == examples[index].answer.strip()
        assert each.before.startswith(each.wanted)
        assert not each.after.startswith(each.wanted)
        assert (each.loss_before, each.loss_after) == (both[0].loss[index], both[1].loss[index])
    off = functools.partial(applied, model, Recipe.of(model, []))
    backwards = changed_answers(model, small_tokenizer, examples, both[::-1], before=on, after=off, most=2)
    assert (backwards.fixed_count, backwards.broken_count) == (found.broken_count, found.fixed_count)
    assert [each.after for each in backwards.fixed] == [each.before for each in found.broken]


@pytest.mark.parametrize("score", ["exact", "first_token"])
def test_nothing_is_shown_where_no_answer_turned(
    knowing: Callable[[], Any], small_tokenizer: Any, task_scored_by: Callable[[str], Task], score: str
) -> None:
    model, task = knowing(), task_scored_by(score)
    both = (strop.evaluate(model, small_tokenizer, task),) * 2
    examples = task.examples("test")
    found = changed_answers(model, small_tokenizer, examples, both, after=contextlib.nullcontext, most=2)
    assert (found.fixed, found.broken, found.fixed_count, found.broken_count) == ((), (), 0, 0)


def test_what_was_written_or_chosen_is_spelt_in_words(knowing: Callable[[], Any], small_tokenizer: Any) -> None:
    """A place of a choice, counted from 1; what was read out of a text, or the text where nothing was."""
    examples = [Example("q", "b", choices=("a", "b"), row=3)]

    def evaluation(score: Any, right: bool, **more: Any) -> Evaluation:
        return Evaluation(score, np.array([1.0]), np.array([1]), np.array([right]), **more)

    for score, before, after, said in (
        ("choice", {"said": (1,)}, {"said": (2,)}, ("a", "b")),
        ("generate", {"said": (None,), "generated": ("I do not know",)}, {"said": ("b",)}, ("I do not know", "b")),
        ("label", {"said": ("a",)}, {"said": ("b",)}, ("a", "b")),
    ):
        both = evaluation(score, False, **before), evaluation(score, True, **after)
        (found,) = changed_answers(
            knowing(), small_tokenizer, examples, both, after=contextlib.nullcontext, most=5
        ).fixed
        assert ((found.before, found.after), found.row, found.wanted) == (said, 3, "b")


def test_nothing_changed_is_nothing_shown(turned: Callable[[Task], Any], small_tokenizer: Any, task: Task) -> None:
    model, recipe, (before, _) = turned(task)
    on = functools.partial(applied, model, recipe)
    found = changed_answers(model, small_tokenizer, task.examples("test"), (before, before), after=on, most=3)
    assert found.to_json() == {"fixed": [], "broken": [], "fixed_count": 0, "broken_count": 0}


def test_losses_alone_change_no_answer(task_scored_by: Callable[[str], Task], task: Task) -> None:
    with pytest.raises(
        UsageError, match="is scored by loss alone, so that no answer becomes right or wrong: leave out"
    ):
        refuse_changed(task_scored_by("perplexity"), 3)
    with pytest.raises(UsageError, match=r"\(--show-changes\) is 1 or more, not 0"):
        refuse_changed(task, 0)
