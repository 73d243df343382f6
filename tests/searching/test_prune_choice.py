"""A pruning: it finds what hurts, says no edit where nothing helps, and leaves model and test split alone."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import strop
from strop.anatomy import MatrixType, WeightSite
from strop.errors import (
    BaseMismatchError,
    InterventionError,
)
from strop.interventions import SingularValuePruning, attachments_of
from strop.linalg import DecompositionCache
from strop.progress import Progress
from strop.recipe import Recipe, bake
from strop.report import intervention_lines
from strop.runs import RunOutcome
from strop.scoring import Evaluation, Scorer
from strop.searching import PrunePlan, prune
from strop.tasks import Task, load_task

T = MatrixType
QUICK = PrunePlan(fractions=(0.02, 0.05, 0.1), iterate=2)
BIASES = ["none", "mean", "position"]
COUNTERFACTUALS = ["zero", "mean", "roll", "pairs"]
COMPONENTS = 576
"""Of the tiny Llama: 3 layers of 32 in each head's eight, or each of the three MLP matrices' 32."""


def evaluated(model: Any, tokenizer: Any, recipe: Recipe, task: Task, split: str = "test") -> Evaluation:
    with strop.applied(model, recipe):
        return strop.evaluate(model, tokenizer, task, split=split)


def assert_figures_are_those_of(evaluation: Evaluation, figures: dict[str, Any]) -> None:
    assert figures["loss"] == pytest.approx(evaluation.mean_loss, rel=1e-4)
    assert figures["accuracy"] == evaluation.accuracy
    assert figures["count"] == evaluation.count


def removed_by(found: RunOutcome) -> dict[WeightSite, tuple[int, ...]]:
    edits = found.recipe.interventions
    return {edit.site: edit.removed for edit in edits if isinstance(edit, SingularValuePruning)}


def state_of(model: Any) -> list[Any]:
    """Everything a pruning touches: bits, biases, modes, hooks, replaced forwards, who asks for a gradient."""
    modules = [
        (name, module.training, len(module._forward_hooks), len(module._forward_pre_hooks), "forward" in vars(module),
         getattr(module, "bias", None) is None)
        for name, module in model.named_modules()
    ]  # fmt: skip
    parameters = [(name, each.requires_grad, each.grad) for name, each in model.named_parameters()]
    return [modules, parameters, {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}]


class Notes(Progress):
    """What a pruning told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


# What it finds


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
    assert edited["accuracy"] > 0.9 > base["accuracy"]
    assert found.result.comparison["test"]["gain"] == pytest.approx(edited["accuracy"] - base["accuracy"])
    assert found.result.comparison["test"]["ci95"][0] > 0


def test_with_all_fractions_to_choose_from_what_hurts_goes_first(
    knowing: Callable[[], Any], small_tokenizer: Any, task: Task
) -> None:
    model = knowing()
    plant(model, small_tokenizer, [example.prompt for example in task.examples("train")], layer=0)
    found = prune(model, small_tokenizer, task, PrunePlan(iterate=3))
    assert 0 in removed_by(found)[WeightSite(0, T.DOWN)]
    assert found.result.edited["test"]["accuracy"] > 0.9 > found.result.base["test"]["accuracy"]


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
    found = prune(model, small_tokenizer, task, plan, out=tmp_path / "run")
    assert found.recipe.interventions == ()
    assert found.result.interventions == []
    assert found.result.base == found.result.edited
    assert found.result.comparison["test"] == {"gain": 0.0, "ci95": [0.0, 0.0], "p_value": 1.0, "fixed": 0, "broken": 0}
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "nothing tried beats what there is; nothing is pruned" in log
    assert ("nothing is left whose removal is predicted to help" in log) != allow_harmful
    assert strop.Recipe.load(tmp_path / "run" / "recipe") == found.recipe
    assert str(found.recipe).startswith("no edit of")


def test_a_model_that_answers_everything_is_left_no_worse_and_it_is_said(
    knowing: Callable[[], Any], small_tokenizer: Any, task: Task
) -> None:
    notes = Notes()
    found = prune(knowing(), small_tokenizer, task, QUICK, progress=notes)
    assert "every select example is answered already: only the loss can gain" in notes.lines
    before, after = found.result.base["select"], found.result.edited["select"]
    assert before["accuracy"] == after["accuracy"] == 1
    assert after["loss"] <= before["loss"]


def test_a_given_fraction_is_the_only_one_tried(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    plan = PrunePlan(fractions=(0.05,), iterate=2, allow_harmful=True)
    found = prune(answering(), small_tokenizer, task, plan)
    bites = [trial.candidate for trial in found.trials if trial.candidate is not None]
    assert [bite.fraction for bite in bites] == [0.05, 0.05]
    assert all(trial.split == "select" for trial in found.trials)  # one bite needs no screening
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
    tried = {(b.scope, b.matrix_types) for t in found.trials if (b := t.candidate) is not None}
    assert tried == {(scope, kinds) for scope in plan.scopes for kinds in (types, (T.UP,), (T.DOWN,))}
    assert {site.matrix_type for site in removed_by(found)} <= set(types)
    assert all(trial.split == "select" for trial in found.trials)  # as many finalists as that need no screening


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


@pytest.mark.parametrize(
    ("family", "bias"),
    [("llama", "none"), ("llama", "mean"), ("llama", "position"), ("gpt2", "mean"), ("gpt_neox", "position")],
)
def test_the_recipe_read_back_scores_what_the_result_says(
    answering: Callable[..., Any], small_tokenizer: Any, even: Task, tmp_path: Path, family: str, bias: Any
) -> None:
    model = answering(family)
    before = state_of(model)
    found = prune(model, small_tokenizer, even, dataclasses.replace(QUICK, bias=bias), out=tmp_path / "run")
    assert state_of(model) == before
    assert attachments_of(model) == ()
    recipe = strop.Recipe.load(tmp_path / "run" / "recipe")
    assert recipe == found.recipe
    assert recipe.interventions
    for edit, tensors in zip(recipe.interventions, recipe.tensors, strict=True):
        assert isinstance(edit, SingularValuePruning)
        assert edit.bias == bias
        assert {name: tensor.ndim for name, tensor in tensors.items()} == (
            {} if bias == "none" else {"bias": BIASES.index(bias)}
        )
    for split in ("select", "test"):
        whole = evaluated(model, small_tokenizer, recipe, even, split)
        assert_figures_are_those_of(whole, found.result.edited[split])
    assert state_of(model) == before


@pytest.mark.parametrize("counterfactual", COUNTERFACTUALS)
def test_effects_are_estimated_with_the_counterfactual_that_is_asked_for(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    even: Task,
    monkeypatch: pytest.MonkeyPatch,
    counterfactual: Any,
) -> None:
    """Each guides to another bite, and from the train split's examples, with their prompts only where they are used."""
    plans: list[Any] = []
    real = strop.searching.pruner.measure_effects

    def watched(scorer: Scorer, sites: Any, **settings: Any) -> Any:
        plans.append((settings["plan"], scorer.example_count, scorer.batches[0].counterfactual_ids is not None))
        return real(scorer, sites, **settings)

    monkeypatch.setattr("strop.searching.pruner.measure_effects", watched)
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
    assert ("nats per token" in str(found)) == (score == "perplexity")


# From examples to a choice


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
    tried = [trial for trial in found.trials if trial.candidate is not None]
    assert {(trial.split, trial.examples) for trial in tried} == {("select", 24), ("select", min(24, effect_examples))}
    assert all(trial.accuracy for trial in tried if trial.examples == 24)
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
    screened = [[t.loss for t in found.trials if t.split == "train"] for found in (one, same, other)]
    assert screened[0] == screened[1] != screened[2]
    assert {t.examples for t in one.trials if t.split == "train"} == {4}
    assert one.recipe == same.recipe


def test_the_test_split_has_no_say_in_the_choice(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    swapped = tuple(
        dataclasses.replace(example, answer=" Brazil", prompt="and " + example.prompt)
        for example in task.splits["test"]
    )
    other = dataclasses.replace(task, splits={**task.splits, "test": swapped})
    one, two = (prune(answering(), small_tokenizer, each, QUICK) for each in (task, other))
    assert one.recipe.interventions == two.recipe.interventions
    assert [dataclasses.replace(t, elapsed_seconds=0) for t in one.trials] == [
        dataclasses.replace(t, elapsed_seconds=0) for t in two.trials
    ]
    assert one.result.base["test"] != two.result.base["test"]


def test_the_test_split_is_scored_once_for_each_model_and_last_and_the_cost_counts_every_pass(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[tuple[int, bool]] = []
    tokens: list[int] = []
    real = Scorer.evaluate

    def watched(self: Scorer, **arguments: Any) -> Any:
        edits = [edit for attachment in attachments_of(self.model) for edit in attachment.interventions]
        order.append((self.example_count, bool(edits)))
        tokens.append(self.tokens)
        return real(self, **arguments)

    monkeypatch.setattr(Scorer, "evaluate", watched)
    found = prune(answering(), small_tokenizer, task, dataclasses.replace(QUICK, test_limit=7, steps=3))
    assert found.recipe.interventions
    assert order[0] == (24, False)
    assert order[-2:] == [(7, False), (7, True)]
    assert 7 not in [count for count, _ in order[:-2]]
    assert found.result.cost["evaluations"] == len(order)
    (guide,) = {t for (count, _), t in zip(order, tokens, strict=True) if count == 12}
    assert found.result.cost["tokens"] == sum(tokens) + QUICK.iterate * 3 * guide


# The document


def test_a_run_holds_what_the_contract_says(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    found = prune(answering(), small_tokenizer, task, QUICK, out=tmp_path / "run")
    run = tmp_path / "run"
    names = {file.name for file in run.iterdir()}
    assert names == {"config.json", "environment.json", "study.db", "result.json", "recipe", "log.txt"}
    result = json.loads((run / "result.json").read_text())
    assert result == found.result.to_json()
    assert (result["format"], result["command"], result["seed"]) == (1, "prune", 0)
    assert result["task"] == {"name": "small-facts", "counts": {"select": 24, "test": 24}}
    assert "start" not in result
    assert set(result["comparison"]) == {"test"}
    assert set(result["comparison"]["test"]) == {"gain", "ci95", "p_value", "fixed", "broken"}
    for entry in result["interventions"]:
        assert set(entry) - {"head"} == {
            "method", "layer", "matrix_type", "removed", "removed_count", "full_rank", "bias",
        }  # fmt: skip
        assert entry["full_rank"] == (8 if "head" in entry else 32)
    document = json.loads((run / "recipe" / "recipe.json").read_text())
    assert document["interventions"] == result["interventions"]
    assert document["provenance"]["command"] == "prune"
    assert document["provenance"]["plan"]["fractions"] == [0.02, 0.05, 0.1]
    config = json.loads((run / "config.json").read_text())
    assert config["plan"]["after"] is None
    assert found.fixed_indices() == [
        i
        for i, (b, a) in enumerate(zip(*(e.correct for e in found.test_evaluations or ()), strict=True))
        if a and not b
    ]


def test_hundreds_of_prunings_are_told_in_few_lines(
    tiny: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    model = tiny("llama", num_hidden_layers=9, num_attention_heads=8, num_key_value_heads=4)
    plan = PrunePlan(fractions=(0.4,), iterate=3, allow_harmful=True, scopes=("per-matrix",))
    found = prune(model, small_tokenizer, task, plan, out=tmp_path / "run")
    assert len(found.recipe.interventions) > 200
    assert len(intervention_lines(found.result.to_json())) == 7
    assert len(str(found).splitlines()) == 2
    card = (tmp_path / "run" / "recipe" / "README.md").read_text()
    assert len(card.splitlines()) < 40
    assert "singular values removed in 9 layers" in card


def test_a_baked_checkpoint_with_mean_biases_is_the_edited_model(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    model = answering()
    model.save_pretrained(tmp_path / "base")
    small_tokenizer.save_pretrained(tmp_path / "base")
    model, tokenizer = strop.load(str(tmp_path / "base"))
    plan = dataclasses.replace(QUICK, bias="mean", matrix_types=(T.KEY, T.VALUE, T.OUTPUT, T.DOWN))
    found = prune(model, tokenizer, task, plan)
    assert len({edit.site.matrix_type for edit in found.recipe.interventions}) > 2
    bake(model, found.recipe, tmp_path / "baked", tokenizer=tokenizer)
    alone, its_tokenizer = strop.load(str(tmp_path / "baked"))
    whole = evaluated(model, tokenizer, found.recipe, task)
    baked = strop.evaluate(alone, its_tokenizer, task)
    np.testing.assert_allclose(baked.loss, whole.loss, rtol=1e-4)
    assert_figures_are_those_of(baked, found.result.edited["test"])


def test_a_position_bias_refuses_sequences_of_another_length_in_one_sentence(
    answering: Callable[..., Any], small_tokenizer: Any, even: Task, task: Task
) -> None:
    model = answering()
    found = prune(model, small_tokenizer, even, dataclasses.replace(QUICK, bias="position"))
    before = state_of(model)
    with pytest.raises(InterventionError) as raised:
        evaluated(model, small_tokenizer, found.recipe, task)
    message = str(raised.value)
    assert "A bias on this model holds for sequences of" in message
    assert "prune with --bias mean" in message
    assert message.count(". ") == 0
    assert message.endswith(".")
    assert state_of(model) == before


def test_a_recipe_with_factors_needs_no_decomposition(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = answering()
    found = prune(
        model, small_tokenizer, task, dataclasses.replace(QUICK, bias="mean"), out=tmp_path / "run", with_factors=True
    )
    recipe = strop.Recipe.load(tmp_path / "run" / "recipe")
    assert recipe.interventions
    assert all(set(tensors) == {"bias", "left", "right"} for tensors in recipe.tensors)
    monkeypatch.setattr(DecompositionCache, "decompose", lambda *_: pytest.fail("a matrix was decomposed"))
    assert_figures_are_those_of(evaluated(model, small_tokenizer, recipe, task), found.result.edited["test"])


# After another recipe


@pytest.mark.parametrize("bias", ["none", "mean"])
def test_a_pruning_begins_with_the_recipe_it_is_given(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, laser: Recipe, tmp_path: Path, bias: Any
) -> None:
    model = answering()
    before = state_of(model)
    plan = dataclasses.replace(QUICK, bias=bias)
    found = prune(model, small_tokenizer, task, plan, after=laser, out=tmp_path / "run", with_factors=True)
    assert state_of(model) == before
    edits = found.recipe.interventions
    assert edits[:2] == laser.interventions
    assert len(edits) > 2
    assert all(isinstance(edit, SingularValuePruning) for edit in edits[2:])
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert set(result["comparison"]) == {"test", "test_over_start"}
    assert [entry["method"] for entry in result["interventions"][:2]] == ["rank_reduction"] * 2
    for split in ("select", "test"):
        plain = strop.evaluate(model, small_tokenizer, task, split=split)
        assert_figures_are_those_of(plain, result["base"][split])
        assert_figures_are_those_of(evaluated(model, small_tokenizer, laser, task, split), result["start"][split])
    recipe = strop.Recipe.load(tmp_path / "run" / "recipe")
    edited = evaluated(model, small_tokenizer, recipe, task)
    assert_figures_are_those_of(edited, result["edited"]["test"])
    start, base = (result[side]["test"]["accuracy"] for side in ("start", "base"))
    assert result["comparison"]["test"]["gain"] == pytest.approx(edited.accuracy - base)
    assert result["comparison"]["test_over_start"]["gain"] == pytest.approx(edited.accuracy - start)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert [entry["layer"] for entry in config["plan"]["after"]] == [2, 1]


def test_where_pruning_adds_nothing_the_recipe_it_began_with_is_the_answer(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, laser: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strop.searching.pruner.removal_by", lambda bite, effects, removed, **_: dict(removed))
    found = prune(answering(), small_tokenizer, task, QUICK, after=laser)
    assert found.recipe.interventions == laser.interventions
    assert found.result.edited == found.result.start
    assert found.result.comparison["test_over_start"]["gain"] == 0


def test_a_recipe_with_biases_can_be_begun_with(
    answering: Callable[..., Any], small_tokenizer: Any, even: Task
) -> None:
    model = answering()
    first = prune(model, small_tokenizer, even, PrunePlan(bias="position", fractions=(0.1,), iterate=1)).recipe
    found = prune(model, small_tokenizer, even, dataclasses.replace(QUICK, bias="mean", steps=2), after=first)
    count = len(first.interventions)
    assert found.recipe.interventions[:count] == first.interventions
    assert all(torch.equal(a["bias"], b["bias"]) for a, b in zip(found.recipe.tensors, first.tensors, strict=False))
    assert_figures_are_those_of(evaluated(model, small_tokenizer, found.recipe, even), found.result.edited["test"])


def test_a_recipe_of_no_edits_is_begun_with_as_if_it_were_not_there(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    model = answering()
    found = prune(model, small_tokenizer, task, QUICK, after=Recipe.of(model, []))
    assert found.result.start == {}
    assert found.recipe.interventions == prune(model, small_tokenizer, task, QUICK).recipe.interventions


def test_a_recipe_for_another_model_is_refused_before_a_folder_is_made(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, laser: Recipe, tmp_path: Path
) -> None:
    other = answering("llama", intermediate_size=64)
    with pytest.raises(BaseMismatchError, match="not the matrix the recipe was made for"):
        prune(other, small_tokenizer, task, QUICK, after=laser, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.real
def test_the_real_model_pruned_bakes_and_reloads_to_the_same_evaluation(real: Any, tmp_path: Path) -> None:
    model, tokenizer = real
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if "layers.3." in name}
    task = load_task("int-mult")
    plan = PrunePlan(iterate=1, fractions=(0.0005,), effect_examples=24, select_limit=16, test_limit=16)
    found = prune(model, tokenizer, task, plan, out=tmp_path / "run")
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    held_out = dataclasses.replace(task, splits={"test": task.examples("test", limit=16)})
    recipe = strop.Recipe.load(tmp_path / "run" / "recipe")
    assert recipe == found.recipe
    assert recipe.interventions
    edited = evaluated(model, tokenizer, recipe, held_out)
    assert_figures_are_those_of(edited, found.result.edited["test"])
    bake(model, recipe, tmp_path / "baked", tokenizer=tokenizer)
    alone, its_tokenizer = strop.load(str(tmp_path / "baked"))
    np.testing.assert_allclose(strop.evaluate(alone, its_tokenizer, held_out).loss, edited.loss, rtol=1e-3, atol=1e-4)
