"""Two recipes of one base on the same examples: every figure is that of an evaluation, and wrong pairs are refused."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.runs import evaluated, state_of

import strop
from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.errors import BaseMismatchError, UsageError
from strop.interventions import Head, RankReduction
from strop.proving import DriftText, RecipePair, Together, compare_recipes
from strop.recipe import Recipe
from strop.scoring import compare, spread
from strop.tasks import Task, load_task

UP = RankReduction(WeightSite(2, MatrixType.UP), 0.1)
VALUE = RankReduction(WeightSite(1, MatrixType.VALUE), 0.1)


@pytest.fixture
def model(answering: Callable[..., Any]) -> Any:
    return answering()


@pytest.fixture
def pair(model: Any) -> RecipePair:
    return RecipePair(Recipe.of(model, [UP]), Recipe.of(model, [VALUE]), names=("up", "value"))


def test_every_figure_is_that_of_an_evaluation_and_the_model_stays_what_it_was(
    model: Any, small_tokenizer: Any, facts: Path, pair: RecipePair
) -> None:
    facts.write_text(facts.read_text() + "category: answer\n")
    task = load_task(facts)
    before = state_of(model)
    found = compare_recipes(model, small_tokenizer, task, pair)
    assert state_of(model) == before
    base = strop.evaluate(model, small_tokenizer, task)
    a, b = (evaluated(model, small_tokenizer, recipe, task) for recipe in (pair.a, pair.b))
    assert a.correct is not None
    assert (a.correct != b.correct).any()
    for own, known in ((found.base, base), (found.a.figures, a), (found.b.figures, b)):
        assert own.loss == pytest.approx(known.mean_loss, rel=1e-5)
        assert (own.accuracy, own.macro, own.count) == (known.accuracy, known.macro, known.count)
    assert found.a.over_base.comparison == compare(base, a)
    assert found.b.over_base.comparison == compare(base, b)
    assert found.b_over_a is not None
    assert found.b_over_a.comparison == compare(a, b)
    assert found.b_over_a.categories == spread(a, b)
    assert (found.a.folder, found.b.folder, found.score) == ("up", "value", "exact")
    assert found.a.over_base.rivals is not None
    assert set(found.a.over_base.rivals.measured) == {"constant"}


def test_each_price_is_that_of_the_recipe_alone(model: Any, small_tokenizer: Any, task: Task, pair: RecipePair) -> None:
    text = DriftText("notes", "The city of Lyon is in France and the city of Curitiba is in Brazil. " * 30)
    found = compare_recipes(model, small_tokenizer, task, pair, limit=6, text=text)
    assert found.base.count == 6
    anatomy = Anatomy.of(model)
    for side, recipe in ((found.a, pair.a), (found.b, pair.b)):
        alone = Together((recipe,)).price(model, small_tokenizer, text, anatomy=anatomy)
        assert alone.drift is not None
        assert alone.drift.kl > 0
        assert side.over_base.price == alone


def test_a_recipe_against_itself_gains_nothing_and_neither_is_better(
    model: Any, small_tokenizer: Any, task: Task, pair: RecipePair
) -> None:
    same = RecipePair(pair.a, pair.a)
    found = compare_recipes(model, small_tokenizer, task, same, split="select", limit=8)
    assert found.split == "select"
    assert found.b_over_a is not None
    assert (found.b_over_a.comparison.gain, found.b_over_a.comparison.p_value) == (0.0, 1.0)
    assert found.better is None
    assert found.a.over_base == found.b.over_base


def test_an_empty_recipe_is_the_base_and_the_other_gains_over_both_alike(
    model: Any, small_tokenizer: Any, task: Task, pair: RecipePair
) -> None:
    found = compare_recipes(model, small_tokenizer, task, RecipePair(Recipe.of(model, []), pair.b))
    assert found.a.over_base.comparison.ci95 == (0.0, 0.0)
    assert found.b_over_a is not None
    assert found.b_over_a.comparison == found.b.over_base.comparison
    assert found.b_over_a.comparison.ci95 != (0.0, 0.0)


def test_recipes_of_different_bases_are_refused_unless_forced(
    tiny: Callable[..., Any], small_tokenizer: Any, task: Task, pair: RecipePair
) -> None:
    fewer, gpt2 = tiny("llama", num_hidden_layers=2), tiny("gpt2")
    for other in (fewer, gpt2):
        stranger = Recipe.of(other, [VALUE])
        with pytest.raises(BaseMismatchError, match=r"^up and value were made for different bases .*--force"):
            dataclasses.replace(pair, b=stranger)
    forced = RecipePair(pair.a, Recipe.of(fewer, [VALUE]), force=True)
    model = tiny("llama")
    assert compare_recipes(model, small_tokenizer, task, forced, limit=4).b.figures.count == 4


def test_a_model_that_is_not_the_base_is_refused_before_anything_is_scored(
    tiny: Callable[..., Any], small_tokenizer: Any, task: Task, pair: RecipePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strop.proving.compare.scorer_of", lambda *given, **more: pytest.fail("it was scored"))
    with pytest.raises(BaseMismatchError, match="is not the matrix the recipe was made for"):
        compare_recipes(tiny("llama", intermediate_size=64), small_tokenizer, task, pair)


def test_a_classifiers_recipe_needs_a_task_with_its_labels(
    tiny_classifier: Callable[..., Any], cities: Callable[..., Path], task: Task
) -> None:
    model = tiny_classifier("llama")
    recipes = Together((Recipe.of(model, [VALUE], head=Head.of(model, ("france", "brazil"))),))
    recipes.refuse_task(load_task(cities()))
    with pytest.raises(
        UsageError, match=r"2 labels \(france, brazil\), and task small-facts has none: give a task with"
    ):
        recipes.refuse_task(task)
    with pytest.raises(
        UsageError, match=r"and task cities has 2 labels \(brazil, france\): give the task it was trained on"
    ):
        recipes.refuse_task(load_task(cities(labels=["brazil", "france"])))


def test_the_bases_of_two_classifiers_may_begin_with_other_heads(tiny_classifier: Callable[..., Any]) -> None:
    first, second = tiny_classifier("llama"), tiny_classifier("llama")
    second.score.weight.data.add_(1.0)
    a, b = (Recipe.of(model, [VALUE], head=Head.of(model, ("x", "y"))) for model in (first, second))
    assert a.base.fingerprint != b.base.fingerprint
    assert RecipePair(a, b).each[1].recipes == (b,)
