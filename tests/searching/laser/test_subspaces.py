"""A search over several subspaces: which candidates there are, that each is what its trial says, and what is refused."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.anatomy import MatrixType, WeightSite
from strop.errors import UsageError
from strop.interventions import RankReduction, applied_interventions
from strop.linalg import decompose
from strop.proving import RunOptions
from strop.scoring import Scorer
from strop.searching import SearchPlan
from strop.searching.laser import search, sweep
from strop.searching.laser.candidates import in_subspaces, space_of
from strop.tasks import Task

UP, KEY = WeightSite(2, MatrixType.UP), WeightSite(2, MatrixType.KEY)
SHAPES = {UP: (48, 32), KEY: (16, 32)}
PLAN = SearchPlan(
    strategy="exhaustive", layers=(2,), matrix_types=(MatrixType.UP, MatrixType.KEY), rank_fractions=(0.1, 0.5),
    subspaces=(1, 2, 3), select_limit=8, test_limit=4,
)  # fmt: skip


def ranks(edits: list[RankReduction], site: WeightSite) -> list[tuple[int, int]]:
    return [(edit.subspaces, edit.rank(SHAPES[site])) for edit in edits if edit.site == site]


def test_candidates_are_as_large_in_every_number_of_subspaces_and_equal_ranks_count_once() -> None:
    plain = [RankReduction(site, share) for site in SHAPES for share in (0.1, 0.12, 0.5, 0.9)]
    found = in_subspaces(plain, SHAPES, subspaces=(1, 2, 4), axis="output", partition="subspace")
    # up: r (48 + 32) / (48 + 32 k) from r = 3, 3, 16, 28; in 4 clusters of 12 rows, rank 12 would cut nothing off
    assert ranks(found, UP) == [(1, 3), (2, 2), (4, 1), (1, 16), (2, 11), (4, 7), (1, 28), (2, 20)]
    # key: r (16 + 32) / (16 + 32 k) from r = 1, 1, 8, 14; r = 1 leaves no rank for two
    assert ranks(found, KEY) == [(1, 1), (1, 8), (2, 4), (4, 2), (1, 14)]
    assert {edit.partition for edit in found if edit.subspaces > 1} == {"subspace"}
    for edit in found:
        whole = RankReduction(edit.site, edit.rank_fraction)
        assert edit.numbers_kept(SHAPES[edit.site]) <= whole.numbers_kept(SHAPES[edit.site])
    assert in_subspaces(plain[:1], SHAPES, subspaces=(1,), axis="output", partition="block") == plain[:1]


def test_a_candidate_in_a_study_is_read_as_it_was_and_a_plain_one_is_spelled_as_before() -> None:
    space = space_of(SHAPES, 3)
    parted = RankReduction(UP, 0.5, subspaces=4, axis="input", partition="subspace")
    for edit in (RankReduction(UP, 0.5), parted):
        key = space.key(edit, stage="search", round=1, split="select", examples=8)
        assert space.candidate(key) == edit
        assert set(space.parameters(key)) == set(space.parameter_distributions(key))
    plain = space.key(RankReduction(UP, 0.5), stage="search", round=1, split="select", examples=8)
    assert set(plain.candidate) == {"layer", "matrix_type", "rank", "rank_fraction"}


def test_every_trial_is_of_its_own_candidate_whatever_was_decomposed_before(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    model = answering()
    found = search(model, small_tokenizer, task, PLAN, RunOptions(out=tmp_path / "run", rivals=False))
    space = space_of(SHAPES, 3)
    tried = {space.candidate(trial.key): trial for trial in found.trials if trial.key.candidate}
    assert {(edit.site, edit.subspaces) for edit in tried if edit} == {
        (site, count) for site in (UP, KEY) for count in (1, 2, 3)
    }
    scorer = Scorer(model, small_tokenizer, task.examples("select", limit=8), task.score)
    for edit, trial in tried.items():
        assert edit is not None
        with applied_interventions(model, [edit], decompose=decompose):
            alone = scorer.evaluate().figures
        assert (trial.accuracy, trial.loss) == pytest.approx((alone.accuracy, alone.loss), abs=1e-5)
    best = max(tried, key=lambda edit: tried[edit].merit)
    assert found.recipe.interventions in ((), (best,))


def test_a_sweep_decomposes_each_matrix_and_each_block_once(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    scorer = Scorer(answering(), small_tokenizer, task.examples("select", limit=4), "exact")
    asked = []

    def counted(matrix: torch.Tensor) -> Any:
        asked.append(tuple(matrix.shape))
        return decompose(matrix)

    plain = [RankReduction(UP, share) for share in (0.1, 0.5)]
    edits = in_subspaces(plain, SHAPES, subspaces=(1, 2), axis="output", partition="block")
    assert len([score() for _, score in sweep(scorer, edits, decompose=counted)]) == 4
    assert asked == [(48, 32), (24, 32), (24, 32)]


def test_the_gradient_proposes_whole_matrices_and_each_is_tried_in_all_numbers(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    plan = dataclasses.replace(PLAN, strategy="gradient", gradient_examples=4, top_matrices=1, finalists=99)
    found = search(answering(), small_tokenizer, task, plan, RunOptions(rivals=False))
    tried = [trial.key.candidate for trial in found.trials if trial.key.candidate]
    assert len({settings["matrix_type"] for settings in tried}) == 1
    assert {settings.get("subspaces", 1) for settings in tried} == {1, 2, 3}


def test_a_plan_without_subspaces_writes_what_it_always_did() -> None:
    assert {"subspaces", "axis", "partition"}.isdisjoint(SearchPlan().to_json())
    written = SearchPlan(subspaces=(1, 4), axis="input", partition="subspace").to_json()
    assert (written["subspaces"], written["axis"], written["partition"]) == ((1, 4), "input", "subspace")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"subspaces": ()}, "subspaces is empty; leave it out to part nothing."),
        ({"subspaces": (2, 0)}, "subspaces are whole numbers, 1 or more, such as 1,2,4,8 (--subspaces), not 0."),
        ({"subspaces": (2.0,)}, "subspaces are whole numbers, 1 or more, such as 1,2,4,8 (--subspaces), not 2.0."),
        ({"subspaces": (2,), "axis": "row"}, "axis is one of output, input, not 'row'."),
        ({"subspaces": (2,), "partition": "kmeans"}, "partition is one of block, subspace, not 'kmeans'."),
        ({"axis": "input"}, "several subspaces: give subspaces as well (--subspaces 1,2,4)."),
        ({"partition": "subspace"}, "several subspaces: give subspaces as well (--subspaces 1,2,4)."),
    ],
    ids=str,
)
def test_a_setting_that_means_nothing_is_refused_in_one_sentence(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        SearchPlan(**settings)
    assert said in str(caught.value)


def test_more_subspaces_than_a_matrix_has_features_are_refused_before_anything_is_scored(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    plan = dataclasses.replace(PLAN, subspaces=(1, 17))
    said = "layer 2 key: A 16 x 32 matrix has 16 output features, which make 1 to 16 subspaces, not 17"
    with pytest.raises(UsageError, match=said):
        search(answering(), small_tokenizer, task, plan)
