"""A sweep: only what an edit changes is computed again, and each matrix is decomposed once."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from strop.anatomy import MatrixType, WeightSite
from strop.interventions import RankReduction
from strop.linalg import DecompositionCache, decompose
from strop.scoring import Scorer
from strop.searching import SearchPlan
from strop.searching.laser import sweep
from strop.tasks import Task

THREE_FAMILIES = ["llama", "gpt2", "gpt_neox"]
QUICK = SearchPlan(rank_fractions=(0.1, 0.5), gradient_examples=8, top_matrices=4, finalists=3)
ALL = dataclasses.replace(QUICK, strategy="exhaustive")


def test_a_sweep_runs_only_the_blocks_from_the_edit_on_and_each_block_below_once(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    model = answering()
    scorer = Scorer(model, small_tokenizer, task.examples("select"), task.score)
    runs = [0, 0, 0]
    for layer, block in enumerate(scorer.anatomy.blocks(model)):
        block.mlp.register_forward_hook(lambda *_, layer=layer: runs.__setitem__(layer, runs[layer] + 1))
    edits = [RankReduction(WeightSite(layer, MatrixType.UP), f) for layer in (2, 0, 1) for f in (0.1, 0.5)]
    reported: list[Any] = []
    for edit, score in sweep(scorer, edits, decompose=DecompositionCache().decompose):
        score()
        reported.append(edit)
    assert [edit.site.layer for edit in reported] == [0, 0, 1, 1, 2, 2]
    passes = len(scorer.batches)
    assert runs == [(2 + 1) * passes, (4 + 1) * passes, 6 * passes]


def test_each_matrix_is_decomposed_once_in_a_sweep(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    scorer = Scorer(answering(), small_tokenizer, task.examples("select", limit=6), "exact")
    asked = []

    def counted(matrix: torch.Tensor) -> Any:
        asked.append(matrix.shape)
        return decompose(matrix)

    sites = (WeightSite(1, MatrixType.UP), WeightSite(0, MatrixType.DOWN))
    candidates = [RankReduction(site, share) for share in (0.1, 0.5, 0.8) for site in sites]
    tried = {edit: score() for edit, score in sweep(scorer, candidates, decompose=counted)}
    assert set(tried) == set(candidates)
    assert asked == [(32, 48), (48, 32)]


def test_the_model_is_edited_only_while_a_candidate_is_scored_and_none_is_scored_unasked(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, bits: Any
) -> None:
    model = answering()
    scorer = Scorer(model, small_tokenizer, task.examples("select", limit=6), "exact")
    before, edited = bits(model), []
    model.model.norm.register_forward_hook(lambda *_: edited.append(bits(model) != before))
    edits = [RankReduction(WeightSite(0, MatrixType.UP), share) for share in (0.1, 0.5, 0.8)]
    for edit, score in sweep(scorer, edits, decompose=decompose):
        if edit != edits[1]:
            score()
        assert bits(model) == before
    assert edited == [True, True]
