"""A search: it finds the best there is, says no edit where nothing helps, and leaves model and test split alone."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.fixtures.runs import read_for_the_price, reduction_of

import strop
from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.errors import SiteError, UneditableWeightError
from strop.interventions import applied_interventions, attachments_of
from strop.linalg import DecompositionCache
from strop.proving import RunOptions
from strop.scoring import Scorer
from strop.searching import SearchPlan
from strop.searching.laser import search
from strop.statistics import Comparison
from strop.tasks import Task

THREE_FAMILIES = ["llama", "gpt2", "gpt_neox"]
QUICK = SearchPlan(rank_fractions=(0.1, 0.5), gradient_examples=8, top_matrices=4, finalists=3)
ALL = dataclasses.replace(QUICK, strategy="exhaustive")
LLAMA_NAMES = {
    "query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj", "output": "self_attn.o_proj",
    "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
}  # fmt: skip


def figures_by_hand(model: Any, tokenizer: Any, examples: Any) -> tuple[float, float]:
    """Accuracy and loss of `exact`, from whole passes one example at a time."""
    rights, losses = [], []
    for example in examples:
        prompt, answer = tokenizer(example.prompt)["input_ids"], tokenizer(example.answer)["input_ids"]
        with torch.no_grad():
            log_p = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
        rights.append(log_p.argmax(-1).tolist() == answer)
        losses.append(-float(log_p[range(len(answer)), answer].mean()))
    return sum(rights) / len(rights), sum(losses) / len(losses)


def test_trying_all_finds_the_true_best_of_all_single_edits(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    model, select = answering(), task.examples("select")
    plan = dataclasses.replace(ALL, layers=(0, 2))
    found = search(model, small_tokenizer, task, plan)
    shapes = {site: tuple(Anatomy.of(model).read_weight(model, site).shape) for site in Anatomy.of(model).sites()}
    edits = [(edit, trial) for trial in found.trials if (edit := reduction_of(trial)) is not None]
    by_edit = {(edit.site, edit.rank(shapes[edit.site])): trial for edit, trial in edits}
    truth: dict[tuple[WeightSite, int], tuple[float, float]] = {}
    for layer in (0, 2):
        for matrix_type, name in LLAMA_NAMES.items():
            weight = model.get_submodule(f"model.layers.{layer}.{name}").weight
            original = weight.detach().clone()
            u, s, vh = np.linalg.svd(original.double().numpy(), full_matrices=False)
            for fraction in (0.1, 0.5):
                rank = int(fraction * len(s))
                with torch.no_grad():
                    weight.copy_(torch.from_numpy((u[:, :rank] * s[:rank]) @ vh[:rank]))
                    site = WeightSite(layer, MatrixType(matrix_type))
                    truth[site, rank] = figures_by_hand(model, small_tokenizer, select)
                    weight.copy_(original)
    assert by_edit.keys() == truth.keys()
    for key, (accuracy, loss) in truth.items():
        assert by_edit[key].loss == pytest.approx(loss, rel=1e-4)
        assert by_edit[key].accuracy == pytest.approx(accuracy)
    assert len({accuracy for accuracy, _ in truth.values()}) > 1
    best = max(truth, key=lambda key: (truth[key][0], -truth[key][1]))
    (chosen,) = found.recipe.interventions
    assert (chosen.site, chosen.rank(tuple(model.get_submodule(
        f"model.layers.{chosen.site.layer}.{LLAMA_NAMES[chosen.site.matrix_type]}").weight.shape))) == best  # fmt: skip
    assert (found.result.edited["select"].accuracy, found.result.edited["select"].loss) == pytest.approx(
        truth[best], rel=1e-4
    )
    assert truth[best] > figures_by_hand(model, small_tokenizer, select)[:1]


@pytest.mark.parametrize(
    ("family", "score"),
    [
        ("llama", "first_token"),
        ("llama", "choice"),
        ("llama", "perplexity"),
        ("gpt2", "choice"),
        ("gpt_neox", "choice"),
    ],
)
def test_every_trial_scores_what_a_whole_pass_of_the_edited_model_scores(
    answering: Callable[..., Any], small_tokenizer: Any, task_scored_by: Callable[[str], Task], family: str, score: str
) -> None:
    model, task = answering(family), task_scored_by(score)
    found = search(model, small_tokenizer, task, dataclasses.replace(ALL, rank_fractions=(0.25,)))
    scorer = Scorer(model, small_tokenizer, task.examples("select"), task.score)
    assert len(found.trials) == 1 + len(scorer.anatomy.sites())
    for trial in found.trials:
        edit = reduction_of(trial)
        with applied_interventions(model, [edit] if edit is not None else []):
            whole = scorer.evaluate()
        assert trial.loss == pytest.approx(whole.mean_loss, rel=1e-4)
        assert trial.accuracy == whole.accuracy
    best = max(found.trials, key=lambda trial: trial.merit)
    assert list(found.recipe.interventions) == [edit for edit in (reduction_of(best),) if edit is not None]
    test = Scorer(model, small_tokenizer, task.examples("test"), task.score)
    with applied_interventions(model, found.recipe.interventions):
        edited = test.evaluate()
    before = test.evaluate()
    for figures, whole in ((found.result.base["test"], before), (found.result.edited["test"], edited)):
        assert figures.loss == pytest.approx(whole.mean_loss, rel=1e-4)
        assert figures.accuracy == whole.accuracy
    gain = found.result.comparison["test"].gain
    if score == "perplexity":
        assert figures.accuracy is None
        assert gain == pytest.approx(before.mean_loss - edited.mean_loss, rel=1e-3, abs=1e-6)
        assert "nats per token" in str(found)
    else:
        assert gain == pytest.approx(edited.accuracy - before.accuracy)
        assert "accuracy on 24 held-out examples" in str(found)


@pytest.mark.parametrize("strategy", ["gradient", "exhaustive"])
def test_no_edit_wins_where_nothing_helps(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, strategy: Any, tmp_path: Path
) -> None:
    model = answering()
    with torch.no_grad():
        for block in model.model.layers:  # what a block adds is nothing, so no edit of it changes anything
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    found = search(
        model,
        small_tokenizer,
        task,
        dataclasses.replace(QUICK, strategy=strategy, layers=(1,)),
        options=RunOptions(out=tmp_path / "run"),
    )
    assert found.recipe.interventions == ()
    assert found.result.interventions == ()
    assert found.result.base == found.result.edited
    assert found.result.comparison["test"] == Comparison(0.0, (0.0, 0.0), 1.0, fixed=0, broken=0)
    assert found.fixed_indices() == []
    assert "nothing tried beats what there is" in (tmp_path / "run" / "log.txt").read_text()
    assert strop.Recipe.load(tmp_path / "run" / "recipe") == found.recipe
    assert str(found.recipe).startswith("no edit of")


def test_an_edit_that_makes_the_loss_no_number_is_never_chosen(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task_scored_by: Callable[[str], Task],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = Scorer.evaluate

    def broken(self: Scorer, **arguments: Any) -> Any:
        found = real(self, **arguments)
        edited = [edit for attachment in attachments_of(self.model) for edit in attachment.interventions]
        return dataclasses.replace(found, loss=found.loss * np.nan) if edited and edited[0].site.layer < 2 else found

    monkeypatch.setattr(Scorer, "evaluate", broken)
    found = search(answering(), small_tokenizer, task_scored_by("perplexity"), ALL)
    assert sum(np.isnan(trial.loss) for trial in found.trials) == 28
    assert all(edit.site.layer == 2 for edit in found.recipe.interventions)
    assert not np.isnan(found.result.edited["select"].loss)


def test_greedy_takes_only_what_helps_and_no_matrix_twice(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    model = answering()
    plan = dataclasses.replace(QUICK, compose="greedy", max_edits=5)
    found = search(model, small_tokenizer, task, plan)
    edits = list(found.recipe.interventions)
    assert 2 <= len(edits) <= 5
    assert len({edit.site for edit in edits}) == len(edits)
    scorer = Scorer(model, small_tokenizer, task.examples("select"), task.score)
    merits = []
    for count in range(len(edits) + 1):
        with applied_interventions(model, edits[:count]):
            merits.append(scorer.evaluate().figures.merit)
    assert all(later > earlier for earlier, later in zip(merits, merits[1:], strict=False))
    assert found.result.edited["select"].loss == pytest.approx(-merits[-1][1], rel=1e-4)


def test_greedy_stops_when_no_matrix_is_left(answering: Callable[..., Any], small_tokenizer: Any, task: Task) -> None:
    plan = dataclasses.replace(
        ALL, compose="greedy", max_edits=9, layers=(1,), matrix_types=(MatrixType.UP, MatrixType.DOWN)
    )
    found = search(answering(), small_tokenizer, task, plan)
    assert len(found.recipe.interventions) <= 2
    assert max(trial.key.round for trial in found.trials) <= 2


def test_greedy_stops_at_most_edits(answering: Callable[..., Any], small_tokenizer: Any, task: Task) -> None:
    found = search(answering(), small_tokenizer, task, dataclasses.replace(QUICK, compose="greedy", max_edits=2))
    assert len(found.recipe.interventions) == 2
    assert max(trial.key.round for trial in found.trials) == 2


@pytest.mark.parametrize("family", THREE_FAMILIES)
@pytest.mark.parametrize(
    "plan", [QUICK, dataclasses.replace(QUICK, compose="greedy", max_edits=3)], ids=["one", "greedy"]
)
def test_the_models_bits_are_untouched_by_a_search(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, bits: Any, family: str, plan: SearchPlan
) -> None:
    model = answering(family)
    before = bits(model)
    assert search(model, small_tokenizer, task, plan).recipe.interventions
    assert bits(model) == before
    assert attachments_of(model) == ()


@pytest.mark.first(2)
@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()], ids=["error", "ctrl-c"])
@pytest.mark.parametrize("after", [1, 4, 12])
def test_the_models_bits_are_untouched_by_a_search_that_was_cut_short(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task: Task,
    bits: Any,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    after: int,
) -> None:
    model = answering().train()
    before, calls, real = bits(model), [], Scorer.evaluate

    def failing(self: Scorer, **arguments: Any) -> Any:
        calls.append(bool(attachments_of(self.model)))
        if len(calls) > after:
            raise error
        return real(self, **arguments)

    monkeypatch.setattr(Scorer, "evaluate", failing)
    with pytest.raises(type(error)):
        search(model, small_tokenizer, task, dataclasses.replace(QUICK, compose="greedy", max_edits=3))
    assert calls[-1]  # it was cut short with an edit in place
    assert bits(model) == before
    assert attachments_of(model) == ()
    assert all(module.training for module in model.modules())


def test_a_recipe_found_can_be_applied_saved_and_read_back(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    model = answering()
    found = search(model, small_tokenizer, task, QUICK)
    assert strop.Recipe.load(found.recipe.save(tmp_path / "recipe")) == found.recipe
    with strop.applied(model, found.recipe):
        edited = strop.evaluate(model, small_tokenizer, task)
    assert edited.mean_loss == pytest.approx(found.result.edited["test"].loss, rel=1e-4)
    before, after = found.test_evaluations or (None, None)
    assert before is not None
    assert after is not None
    changed = [i for i in range(before.count) if after.correct[i] and not before.correct[i]]
    assert found.fixed_indices() == changed
    assert len(changed) == found.result.comparison["test"].fixed


def test_a_recipe_with_factors_needs_no_decomposition(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = answering()
    found = search(model, small_tokenizer, task, QUICK, options=RunOptions(out=tmp_path / "run", with_factors=True))
    recipe = strop.Recipe.load(tmp_path / "run" / "recipe")
    assert recipe == found.recipe
    assert recipe.interventions
    assert (tmp_path / "run" / "recipe" / "tensors.safetensors").is_file()
    monkeypatch.setattr(DecompositionCache, "decompose", lambda *_: pytest.fail("a matrix was decomposed"))
    with strop.applied(model, recipe):
        weight = Anatomy.of(model).read_weight(model, recipe.interventions[0].site)
        assert int(torch.linalg.matrix_rank(weight.double(), rtol=1e-5)) <= recipe.describe()[0]["rank"]


def test_what_the_model_has_not_is_refused_before_a_folder_is_made(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    model = answering()
    with pytest.raises(SiteError, match="layers 0 to 2"):
        search(
            model,
            small_tokenizer,
            task,
            dataclasses.replace(QUICK, layers=(7,)),
            options=RunOptions(out=tmp_path / "run"),
        )
    with pytest.raises(SiteError, match="no gate matrix"):
        search(
            answering("gpt2"),
            small_tokenizer,
            task,
            dataclasses.replace(QUICK, matrix_types=(MatrixType.GATE,)),
            options=RunOptions(out=tmp_path / "run"),
        )
    model.model.layers[1].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
    with pytest.raises(UneditableWeightError, match="tied"):
        search(model, small_tokenizer, task, QUICK, options=RunOptions(out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_cost_counts_every_evaluation_and_its_tokens(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    real = Scorer.evaluate

    def watched(self: Scorer, **arguments: Any) -> Any:
        counted.append(self.tokens)
        return real(self, **arguments)

    monkeypatch.setattr(Scorer, "evaluate", watched)
    found = search(answering(), small_tokenizer, task, QUICK)
    assert {trial.key.examples for trial in found.trials} == {8, 24}  # some were screened on a sample
    assert found.result.cost.evaluations == len(counted)
    gradient = min(counted)  # is taken over the sample that candidates are screened on
    assert found.result.cost.tokens == sum(counted) + gradient + read_for_the_price(found)


@pytest.mark.real
def test_the_real_model_answers_more_facts_with_one_matrix_cut_down(real: Any, tmp_path: Path) -> None:
    model, tokenizer = real
    plan = SearchPlan(
        layers=(28,), matrix_types=(MatrixType.UP,), rank_fractions=(0.01,), select_limit=30, test_limit=60,
        gradient_examples=10,
    )  # fmt: skip
    found = search(model, tokenizer, strop.load_task("world-facts-all"), plan)
    assert [(edit.site.layer, edit.rank_fraction) for edit in found.recipe.interventions] == [(28, 0.01)]
    assert found.result.comparison["test"].gain > 0
