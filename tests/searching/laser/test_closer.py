"""A closer look: up and down from the best rank as long as it helps, and no rank that was not allowed."""

import dataclasses
from collections.abc import Callable, Sequence

import pytest
from tests.fixtures.judging import Edits, Judged, chosen

from strop.anatomy import MatrixType, WeightSite
from strop.interventions import RankReduction
from strop.linalg import fraction_for_rank
from strop.proving import Trial, TrialKey
from strop.searching import SearchPlan
from strop.searching.laser.closer import look_closer, neighbours

SITES = [WeightSite(layer, MatrixType.UP) for layer in range(4)]
SHAPES = dict.fromkeys(SITES, (300, 200))
KEY = TrialKey("rank_reduction", "choice", 1, "select", 9)


def cut(layer: int, rank: int) -> RankReduction:
    return RankReduction(SITES[layer], fraction_for_rank(rank, (300, 200)))


def ranks(edits: Sequence[RankReduction]) -> list[int]:
    return [edit.rank((300, 200)) for edit in edits]


def judge(loss: Callable[[int, int], float]) -> Callable[[Sequence[RankReduction]], dict[RankReduction, Trial]]:
    return lambda edits: {edit: Trial(KEY, 0.0, loss(edit.site.layer, edit.rank(SHAPES[edit.site]))) for edit in edits}


@pytest.mark.parametrize(
    ("rank", "near"), [(160, [150, 170]), (1, [2]), (195, [190]), (199, [195]), (33, [30, 40]), (101, [100, 120])]
)
def test_the_neighbours_of_a_rank_are_the_next_deeper_and_the_next_milder_cut(rank: int, near: list[int]) -> None:
    assert ranks(neighbours(cut(1, rank), SHAPES, SearchPlan())) == near


def test_where_rank_fractions_are_given_there_are_no_others() -> None:
    plan = SearchPlan(rank_fractions=(0.9, 0.3, 0.7))
    assert neighbours(RankReduction(SITES[0], 0.7), SHAPES, plan) == [
        RankReduction(SITES[0], 0.3),
        RankReduction(SITES[0], 0.9),
    ]
    assert neighbours(RankReduction(SITES[0], 0.9), SHAPES, plan) == [RankReduction(SITES[0], 0.7)]


def test_a_matrix_is_followed_as_far_as_it_helps_and_only_the_best_two_are() -> None:
    best_rank = {0: 190, 1: 60, 2: 0, 3: 0}
    try_each = judge(lambda layer, rank: layer + abs(rank - best_rank[layer]) / 1000)
    begun = try_each([cut(layer, rank) for layer in range(4) for rank in (20, 160)])
    found = look_closer(begun, SHAPES, SearchPlan(), try_each=try_each)
    tried = {layer: sorted(ranks([e for e in found if e.site.layer == layer])) for layer in range(4)}
    assert tried[0] == [20, 150, 160, 170, 180, 185, 190, 195]  # up from 160, the best, and one too far each way
    assert tried[1] == [14, 20, 30, 40, 60, 80, 160]
    assert tried[2] == tried[3] == [20, 160]
    assert list(found) == sorted(found, key=lambda edit: (edit.site, edit.rank_fraction))


def test_a_closer_look_ends_where_the_budget_does() -> None:
    begun = judge(lambda layer, rank: rank)([cut(0, 160)])
    assert look_closer(begun, SHAPES, SearchPlan(), try_each=lambda _: {}) == begun
    assert look_closer({}, SHAPES, SearchPlan(), try_each=lambda _: {}) == {}


@pytest.mark.parametrize("compose", ["greedy", "beam"])
def test_a_cut_too_mild_for_the_grid_is_found(judged: Judged, compose: str) -> None:
    mild = {28: 0.05, 29: -0.1, 30: -0.3, 31: -0.2}

    def rule(edits: Edits) -> float:
        return 10 + sum(mild.get(int(share * 32 + 1e-9), 1.0) if layer == 2 else 2.0 for layer, share in edits)

    plan = SearchPlan(strategy="exhaustive", matrix_types=(MatrixType.UP,), max_edits=None, layers=(1, 2, 3))
    assert chosen(judged.choose(plan, rule)) == frozenset()
    ((layer, share),) = chosen(judged.choose(dataclasses.replace(plan, compose=compose), rule))
    assert (layer, int(share * 32 + 1e-9)) == (2, 30)
