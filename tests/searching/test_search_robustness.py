"""A search that is large, half-precise, renamed or beside others gives the same answer as one that is none of these."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import strop
from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.errors import DecompositionError
from strop.interventions import RankReduction
from strop.linalg import DecompositionCache, decompose
from strop.progress import Progress
from strop.runs import Trial
from strop.scoring import Scorer
from strop.searching import Effects, SearchPlan, measure_effects, search, sweep
from strop.searching.candidates import best_of, predicted_candidates
from strop.tasks import Task

QUICK = SearchPlan(rank_fractions=(0.1, 0.5), gradient_examples=8, top_matrices=4, finalists=3)
UP = WeightSite(1, MatrixType.UP)


def trial(rank: int, accuracy: float, loss: float) -> Trial:
    return Trial(1, RankReduction(UP, rank / 100), 10, accuracy, loss)


def effects_of(scorer: Scorer) -> dict[WeightSite, torch.Tensor]:
    found = measure_effects(scorer, scorer.anatomy.sites(), decompose=decompose)
    return {site: effects.loss_change for site, effects in found.items()}


def test_effects_in_float16_do_not_vanish_with_the_number_of_examples(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    examples = task.examples("select", limit=6)
    exact = effects_of(Scorer(answering(), small_tokenizer, examples, "exact"))
    scorer = Scorer(answering().half(), small_tokenizer, examples, "exact")
    scorer.example_count = 6 * 100_000  # as if these six stood among many more
    for site, effects in effects_of(scorer).items():
        size = float(exact[site].abs().max())
        assert torch.allclose(effects * 100_000, exact[site], atol=0.05 * size), site


def test_a_sample_walked_in_parts_has_the_effects_of_the_whole(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strop.scoring.encoding.BATCH_TOKENS", 48)
    scorer = Scorer(answering(), small_tokenizer, task.examples("select"), "exact")
    assert len(scorer.batches) > 3
    whole = effects_of(scorer)
    monkeypatch.setattr("strop.searching.effects.STATE_BUDGET_BYTES", 1)
    for site, effects in effects_of(scorer).items():
        assert torch.allclose(effects, whole[site], rtol=1e-4, atol=1e-7), site


def test_long_rows_scored_a_few_positions_at_a_time_score_the_same(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task_scored_by: Callable[[str], Task],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    examples = task_scored_by("perplexity").examples("select", limit=5)
    model = answering()

    def scored() -> tuple[Any, dict[WeightSite, torch.Tensor]]:
        scorer = Scorer(model, small_tokenizer, examples, "perplexity")
        states = scorer.states_entering(1)
        assert scorer.evaluate(start=1, states=states).loss == pytest.approx(scorer.evaluate().loss, rel=1e-5)
        return scorer.evaluate(), effects_of(scorer)

    whole, whole_effects = scored()
    monkeypatch.setattr("strop.scoring.encoding.BATCH_SCORED", 2)
    parts, part_effects = scored()
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    assert (parts.tokens == whole.tokens).all()
    for site, effects in part_effects.items():
        assert torch.allclose(effects, whole_effects[site], rtol=1e-4, atol=1e-7), site


def test_a_loss_of_nan_is_the_worst_in_a_screening() -> None:
    trials = [trial(1, 0.5, 3.0), trial(2, 0.5, math.nan), trial(3, 0.5, 1.0), trial(4, 0.5, 2.0)]
    assert [edit.rank((100, 100)) for edit in best_of(trials, 3)] == [3, 4, 1]


def test_matrices_whose_effects_are_not_finite_are_not_proposed() -> None:
    good, bad = UP, WeightSite(0, MatrixType.UP)
    changes = {good: torch.tensor([-1.0, -2.0, -1.0, -3.0]), bad: torch.tensor([-1.0, math.nan, -1.0, -1.0])}
    effects = {site: Effects(change, change) for site, change in changes.items()}
    shapes = {bad: (4, 4), good: (4, 4)}
    proposed = predicted_candidates(effects, shapes, top_matrices=1, rank_fractions=None)
    assert {edit.site for edit in proposed} == {good}
    with pytest.raises(DecompositionError, match="not finite for any matrix.*--dtype float32.*--strategy exhaustive"):
        predicted_candidates({bad: effects[bad]}, {bad: (4, 4)}, top_matrices=1, rank_fractions=None)


def test_each_matrix_is_decomposed_once_in_a_sweep(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    scorer = Scorer(answering(), small_tokenizer, task.examples("select", limit=6), "exact")
    asked = []

    def counted(matrix: torch.Tensor) -> Any:
        asked.append(matrix.shape)
        return decompose(matrix)

    candidates = [
        RankReduction(site, share) for share in (0.1, 0.5, 0.8) for site in (UP, WeightSite(0, MatrixType.DOWN))
    ]
    tried: list[Any] = []
    sweep(scorer, candidates, decompose=counted, report=lambda edit, _: tried.append(edit))
    assert set(tried) == set(candidates)
    assert asked == [(32, 48), (48, 32)]


def test_a_run_whose_folder_was_renamed_repeats_no_trial(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = answering()
    first = search(model, small_tokenizer, task, QUICK, out=tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run").rename(tmp_path / "moved")
    monkeypatch.setattr("strop.searching.chooser.sweep", lambda *_, **__: pytest.fail("a trial was repeated"))
    again = search(model, small_tokenizer, task, QUICK, out=tmp_path / "moved", resume=True)
    assert again.recipe == first.recipe
    assert len(again.trials) == len(first.trials)


def test_two_runs_in_one_storage_keep_their_trials_apart(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    before = search(answering(), small_tokenizer, task, QUICK, out=tmp_path / "a" / "run", storage=storage)
    tried: list[int] = []

    class Counting(Progress):
        def start(self, stage: str, total: int) -> None:
            tried.append(total)

    after = search(
        answering(), small_tokenizer, task, QUICK, out=tmp_path / "b" / "run", storage=storage, progress=Counting()
    )
    assert len(after.trials) == len(before.trials)
    assert len(tried) > 2
    (tmp_path / "b" / "run" / "result.json").unlink()
    with pytest.raises(strop.StropError, match="began with storage = .*shared.db.* and now it is None"):
        search(answering(), small_tokenizer, task, QUICK, out=tmp_path / "b" / "run", resume=True)


def test_a_storage_that_cannot_be_opened_leaves_no_run_behind(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    with pytest.raises(strop.StropError, match="cannot be opened"):
        search(
            answering(),
            small_tokenizer,
            task,
            QUICK,
            out=tmp_path / "run",
            storage=f"sqlite:///{tmp_path}/no/such/x.db",
        )
    assert not (tmp_path / "run").exists()


def test_a_recipe_with_factors_needs_no_decomposition(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = answering()
    plan = dataclasses.replace(QUICK, rank_fractions=(0.0, 0.1, 0.5, 0.9), top_matrices=21)
    found = search(model, small_tokenizer, task, plan, out=tmp_path / "run", with_factors=True)
    recipe = strop.Recipe.load(tmp_path / "run" / "recipe")
    assert recipe == found.recipe
    assert recipe.interventions
    assert (tmp_path / "run" / "recipe" / "tensors.safetensors").is_file()
    monkeypatch.setattr(DecompositionCache, "decompose", lambda *_: pytest.fail("a matrix was decomposed"))
    with strop.applied(model, recipe):
        weight = Anatomy.of(model).read_weight(model, recipe.interventions[0].site)
        assert int(torch.linalg.matrix_rank(weight.double(), rtol=1e-5)) <= recipe.describe()[0]["rank"]


def test_the_config_names_the_run(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    ids = set()
    for name in ("one", "two"):
        search(answering(), small_tokenizer, task, QUICK, out=tmp_path / name)
        ids.add(json.loads((tmp_path / name / "config.json").read_text())["run"])
    assert len(ids) == 2
