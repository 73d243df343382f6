"""A pruning: it finds what hurts, says no edit where nothing helps, and asks the examples it should."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.runs import Notes, assert_figures_are_those_of, evaluated, read_for_the_price

import strop
from strop.anatomy import MatrixType, WeightSite
from strop.interventions import SingularValuePruning
from strop.proving import RunOptions, RunOutcome
from strop.scoring import Scorer
from strop.searching import PrunePlan, measure_effects
from strop.searching.eigenpruning import prune
from strop.statistics import Comparison
from strop.tasks import Task

T = MatrixType
QUICK = PrunePlan(fractions=(0.02, 0.05, 0.1), iterate=2)
COMPONENTS = 576
"""Of the tiny Llama: 3 layers of 32 in each head's eight, or each of the three MLP matrices' 32."""


def removed_by(found: RunOutcome) -> dict[WeightSite, tuple[int, ...]]:
    edits = found.recipe.interventions
    return {edit.site: edit.removed for edit in edits if isinstance(edit, SingularValuePruning)}


def plant(model: Any, tokenizer: Any, texts: Sequence[str], layer: int) -> None:
    """Add to a layer's down matrix the largest of its components, one that pulls all answers to another token."""
    down, seen = model.model.layers[layer].mlp.down_proj, []
    handle = down.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].detach()[0, -1]))
    with torch.no_grad():
        for text in texts:
            model(torch.tensor([tokenizer(text)["input_ids"]]))
        handle.remove()
        wrong = model.get_output_embeddings().weight[tokenizer(" capital")["input_ids"][0]]
        at_last = torch.stack(seen).mean(0)
        size = 3 * float(torch.linalg.matrix_norm(down.weight, 2))
        down.weight.add_(size * torch.outer(wrong / wrong.norm(), at_last / at_last.norm()))


def test_the_one_component_that_hurts_is_found_and_nothing_else_removed(
    knowing: Callable[[], Any], small_tokenizer: Any, task: Task
) -> None:
    model = knowing()
    known = strop.evaluate(model, small_tokenizer, task)
    plant(model, small_tokenizer, [example.prompt for example in task.examples("train")], layer=1)
    found = prune(model, small_tokenizer, task, PrunePlan(fractions=(1 / COMPONENTS,), iterate=1))
    assert removed_by(found) == {WeightSite(1, T.DOWN): (0,)}
    base, edited = found.result.base["test"], found.result.edited["test"]
    assert known.accuracy == 1
    assert edited.accuracy > 0.9 > base.accuracy
    assert found.result.comparison["test"].gain == pytest.approx(edited.accuracy - base.accuracy)
    assert found.result.comparison["test"].ci95[0] > 0


def test_with_all_fractions_to_choose_from_what_hurts_goes_first(
    knowing: Callable[[], Any], small_tokenizer: Any, task: Task
) -> None:
    model = knowing()
    plant(model, small_tokenizer, [example.prompt for example in task.examples("train")], layer=0)
    found = prune(model, small_tokenizer, task, PrunePlan(iterate=3))
    assert 0 in removed_by(found)[WeightSite(0, T.DOWN)]
    assert found.result.edited["test"].accuracy > 0.9 > found.result.base["test"].accuracy


@pytest.mark.parametrize("allow_harmful", [False, True])
def test_no_edit_wins_where_nothing_helps(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path, allow_harmful: bool
) -> None:
    model = answering()
    with torch.no_grad():
        for block in model.model.layers:  # what a block adds is nothing, so no edit of it changes anything
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    plan = dataclasses.replace(QUICK, allow_harmful=allow_harmful)
    found = prune(model, small_tokenizer, task, plan, options=RunOptions(out=tmp_path / "run"))
    assert found.recipe.interventions == ()
    assert found.result.interventions == ()
    assert found.result.base == found.result.edited
    assert found.result.comparison["test"] == Comparison(0.0, (0.0, 0.0), 1.0, fixed=0, broken=0)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "nothing tried beats what there is; nothing is pruned" in log
    assert ("nothing is left whose removal is predicted to help" in log) != allow_harmful
    assert strop.Recipe.load(tmp_path / "run" / "recipe") == found.recipe
    assert str(found.recipe).startswith("no edit of")


def test_a_model_that_answers_everything_is_left_no_worse_and_it_is_said(
    knowing: Callable[[], Any], small_tokenizer: Any, task: Task
) -> None:
    notes = Notes()
    found = prune(knowing(), small_tokenizer, task, QUICK, options=RunOptions(progress=notes))
    assert "every select example is answered already: only the loss can gain" in notes.lines
    before, after = found.result.base["select"], found.result.edited["select"]
    assert before.accuracy == after.accuracy == 1
    assert after.loss <= before.loss


def test_a_given_fraction_is_the_only_one_tried(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    plan = PrunePlan(fractions=(0.05,), iterate=2, allow_harmful=True)
    found = prune(answering(), small_tokenizer, task, plan)
    assert [t.key.candidate["fraction"] for t in found.trials if t.key.candidate] == [0.05, 0.05]
    assert all(trial.key.split == "select" for trial in found.trials)  # one step needs no screening
    count = sum(len(indices) for indices in removed_by(found).values())
    assert count in (round(0.05 * COMPONENTS), 2 * round(0.05 * COMPONENTS))


@pytest.mark.parametrize(
    ("scope", "most"),
    [("global", {"all": 58}), ("per-type", {T.UP: 10, T.KEY: 5, T.QUERY: 10}), ("per-matrix", {T.UP: 9, T.KEY: 6})],
)
def test_a_fraction_is_of_all_of_a_type_or_of_a_matrix(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, scope: Any, most: dict[str, int]
) -> None:
    plan = PrunePlan(scopes=(scope,), fractions=(0.1,), iterate=1, allow_harmful=True)
    found = prune(answering(), small_tokenizer, task, plan)
    counts = Counter({"all": 0})
    for site, indices in removed_by(found).items():
        counts[site.matrix_type] += len(indices)
        counts["all"] += len(indices)
    assert counts["all"] > 0
    assert {name: counts[name] for name in most} == most


def test_several_scopes_and_each_matrix_type_alone_are_tried(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    types = (T.UP, T.DOWN)
    plan = PrunePlan(scopes=("global", "per-matrix"), search_types=True, matrix_types=types, iterate=1, finalists=99)
    found = prune(answering(), small_tokenizer, task, plan)
    tried = {(t.key.candidate["scope"], t.key.candidate["matrix_types"]) for t in found.trials if t.key.candidate}
    assert tried == {(scope, kinds) for scope in plan.scopes for kinds in ("up,down", "up", "down")}
    assert {site.matrix_type for site in removed_by(found)} <= set(types)
    assert all(trial.key.split == "select" for trial in found.trials)  # as many finalists as that need no screening


@pytest.mark.parametrize("whole", [False, True])
def test_attention_is_decomposed_head_by_head_or_whole(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, whole: bool
) -> None:
    plan = PrunePlan(
        whole_matrices=whole, layers=(1, 2), matrix_types=(T.KEY, T.OUTPUT, T.UP), fractions=(0.3,), iterate=1,
        allow_harmful=True,
    )  # fmt: skip
    found = prune(answering(), small_tokenizer, task, plan)
    heads = {(site.matrix_type, site.head is not None) for site in removed_by(found)}
    assert heads == {(T.KEY, not whole), (T.OUTPUT, not whole), (T.UP, False)}
    assert {site.layer for site in removed_by(found)} <= {1, 2}


@pytest.mark.first(2)
@pytest.mark.parametrize("counterfactual", ["zero", "mean", "roll", "pairs"])
def test_effects_are_estimated_with_the_counterfactual_that_is_asked_for(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    even: Task,
    monkeypatch: pytest.MonkeyPatch,
    counterfactual: Any,
) -> None:
    """Each guides to another step, and from the train split's examples, with their prompts only where they are used."""
    plans: list[Any] = []

    def watched(scorer: Scorer, sites: Any, **settings: Any) -> Any:
        plans.append((settings["plan"], scorer.example_count, scorer.batches[0].counterfactual_ids is not None))
        return measure_effects(scorer, sites, **settings)

    monkeypatch.setattr("strop.searching.asking.measure_effects", watched)
    plan = dataclasses.replace(QUICK, counterfactual=counterfactual, steps=2, reduction="sum", iterate=1)
    found = prune(answering(), small_tokenizer, even, plan)
    assert plans == [(plan.effects, len(even.examples("train")), counterfactual == "pairs")]
    other = {"zero": "mean", "mean": "zero"}.get(counterfactual, "zero")
    elsewhere = prune(answering(), small_tokenizer, even, dataclasses.replace(plan, counterfactual=other))
    assert [t.loss for t in found.trials[1:]] != [t.loss for t in elsewhere.trials[1:]]


@pytest.mark.parametrize("score", ["choice", "first_token", "perplexity"])
def test_every_score_is_pruned_for_and_proved(
    answering: Callable[..., Any], small_tokenizer: Any, task_scored_by: Callable[[str], Task], score: str
) -> None:
    model, task = answering(), task_scored_by(score)
    found = prune(model, small_tokenizer, task, QUICK)
    assert found.recipe.interventions
    for split in ("select", "test"):
        whole = evaluated(model, small_tokenizer, found.recipe, task, split)
        assert_figures_are_those_of(whole, found.result.edited[split])
        assert (whole.accuracy is None) == (score == "perplexity")
    assert ("loss on " in str(found)) == (score == "perplexity")


@pytest.mark.parametrize("score", ["exact", "choice"])
@pytest.mark.parametrize("effect_examples", [200, 8])
def test_without_a_train_split_select_guides_and_is_scored_as_the_task_is(
    tiny: Callable[..., Any],
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task_scored_by: Callable[[str], Task],
    score: str,
    effect_examples: int,
) -> None:
    """`choice` is guided by the right choices alone, which a model that would say neither never says."""
    model, task = (tiny if score == "choice" else answering)("llama"), task_scored_by(score)
    task = dataclasses.replace(task, splits={name: task.splits[name] for name in ("select", "test")})
    found = prune(model, small_tokenizer, task, dataclasses.replace(QUICK, effect_examples=effect_examples))
    tried = [trial for trial in found.trials if trial.key.candidate]
    assert {(trial.key.split, trial.key.examples) for trial in tried} == {
        ("select", 24),
        ("select", min(24, effect_examples)),
    }
    assert all(trial.accuracy for trial in tried if trial.key.examples == 24)
    for split in ("select", "test"):
        assert_figures_are_those_of(
            evaluated(model, small_tokenizer, found.recipe, task, split), found.result.edited[split]
        )


def test_a_seed_draws_the_sample_effects_are_estimated_on(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    plan = dataclasses.replace(QUICK, effect_examples=4, iterate=1)
    one, same, other = (
        prune(answering(), small_tokenizer, task, dataclasses.replace(plan, seed=seed)) for seed in (0, 0, 1)
    )
    screened = [[t.loss for t in found.trials if t.key.split == "train"] for found in (one, same, other)]
    assert screened[0] == screened[1] != screened[2]
    assert {t.key.examples for t in one.trials if t.key.split == "train"} == {4}
    assert one.recipe == same.recipe


def test_the_cost_counts_every_pass(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, int]] = []
    real = Scorer.evaluate

    def watched(self: Scorer, **arguments: Any) -> Any:
        read.append((self.example_count, self.tokens))
        return real(self, **arguments)

    monkeypatch.setattr(Scorer, "evaluate", watched)
    found = prune(answering(), small_tokenizer, task, dataclasses.replace(QUICK, steps=3))
    assert found.recipe.interventions
    assert found.result.cost.evaluations == len(read)
    (guide,) = {tokens for count, tokens in read if count == len(task.examples("train"))}
    gradients = QUICK.iterate * 3 * guide
    assert found.result.cost.tokens == sum(tokens for _, tokens in read) + gradients + read_for_the_price(found)
