"""Which edits are proposed: valid ranks, no more matrices than asked for, the predicted rank among them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strop.anatomy import MatrixType, WeightSite
from strop.errors import DecompositionError
from strop.interventions import RankReduction
from strop.linalg import loss_change_by_rank, rank_for_fraction
from strop.proving import Trial, TrialKey
from strop.searching import Effects
from strop.searching.laser.candidates import ALWAYS, all_candidates, best_of, predicted_candidates

SHAPES = st.dictionaries(
    st.builds(WeightSite, st.integers(0, 9), st.sampled_from(MatrixType)),
    st.tuples(st.integers(2, 700), st.integers(2, 700)),
    min_size=1,
    max_size=12,
)
FRACTIONS = st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=8)
quick = settings(max_examples=60, deadline=None)


def effects_for(shapes: dict[WeightSite, tuple[int, int]], seed: int) -> dict[WeightSite, Effects]:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda shape: torch.randn(min(shape), dtype=torch.float64, generator=generator)  # noqa: E731
    return {site: Effects(loss_change=draw(shape), score=draw(shape)) for site, shape in shapes.items()}


@quick
@given(SHAPES, FRACTIONS)
def test_trying_all_means_every_matrix_at_every_rank_once(shapes, fractions) -> None:
    found = all_candidates(shapes, fractions)
    ranks = [(edit.site, edit.rank(shapes[edit.site])) for edit in found]
    assert len(set(ranks)) == len(ranks)
    assert set(ranks) == {(site, rank_for_fraction(f, shape)) for site, shape in shapes.items() for f in fractions}
    assert {edit.rank_fraction for edit in found} <= set(fractions)


@quick
@given(SHAPES, st.integers(0, 9), st.integers(1, 15))
def test_proposed_ranks_are_valid_and_of_few_matrices(shapes, seed: int, top: int) -> None:
    found = predicted_candidates(effects_for(shapes, seed), shapes, top_matrices=top, rank_fractions=None)
    assert len({edit.site for edit in found}) == min(top, len(shapes))
    ranks = [(edit.site, edit.rank(shapes[edit.site])) for edit in found]
    assert len(set(ranks)) == len(ranks)
    assert all(1 <= rank < min(shapes[site]) for site, rank in ranks)


@quick
@given(SHAPES, st.integers(0, 9))
def test_the_ladder_holds_the_predicted_rank_between_its_deepest_and_its_mildest_cut(shapes, seed: int) -> None:
    effects = effects_for(shapes, seed)
    found = predicted_candidates(effects, shapes, top_matrices=99, rank_fractions=None)
    for site, shape in shapes.items():
        ranks = {edit.rank(shape) for edit in found if edit.site == site}
        deepest, mildest = (max(1, rank_for_fraction(fraction, shape)) for fraction in ALWAYS)
        changes = [float(effects[site].loss_change[rank:].sum()) for rank in range(min(shape))]
        predicted = min(range(min(shape)), key=changes.__getitem__)
        assert {deepest, mildest} <= ranks
        assert min(max(predicted, deepest), mildest) in ranks
        assert max(ranks) == mildest


@quick
@given(SHAPES, FRACTIONS, st.integers(0, 9), st.integers(1, 15))
def test_given_rank_fractions_are_the_only_ones_proposed(shapes, fractions, seed: int, top: int) -> None:
    found = predicted_candidates(effects_for(shapes, seed), shapes, top_matrices=top, rank_fractions=fractions)
    assert {edit.rank_fraction for edit in found} <= set(fractions)
    for site in {edit.site for edit in found}:
        ranks = [edit.rank(shapes[site]) for edit in found if edit.site == site]
        assert sorted(ranks) == sorted({rank_for_fraction(fraction, shapes[site]) for fraction in fractions})


@quick
@given(SHAPES, st.integers(0, 9), st.integers(1, 6))
def test_the_matrices_proposed_are_those_with_the_lowest_predicted_loss(shapes, seed: int, top: int) -> None:
    effects = effects_for(shapes, seed)
    found = predicted_candidates(effects, shapes, top_matrices=top, rank_fractions=None)
    promised = {site: float(loss_change_by_rank(effects[site].loss_change)[:-1].min()) for site in shapes}
    chosen = {edit.site for edit in found}
    left = set(shapes) - chosen
    assert not left or max(promised[site] for site in chosen) <= min(promised[site] for site in left)
    order = list(dict.fromkeys(edit.site for edit in found))
    assert order == sorted(order, key=promised.__getitem__)


def screened(*figures: tuple[float, float]) -> dict[RankReduction, Trial]:
    """Accuracy and loss of one edit in each layer."""
    key = TrialKey("rank_reduction", "choice", 1, "select", 9)
    return {
        RankReduction(WeightSite(layer, MatrixType.UP), 0.5): Trial(key, accuracy, loss)
        for layer, (accuracy, loss) in enumerate(figures)
    }


def layers_of(edits: list[RankReduction]) -> list[int]:
    return [edit.site.layer for edit in edits]


def test_a_screening_lets_accuracy_and_loss_speak_in_turn() -> None:
    trials = screened((0.9, 9.0), (0.8, 8.0), (0.1, 1.0), (0.2, 2.0))
    assert layers_of(best_of(trials, 4)) == [0, 2, 1, 3]
    assert layers_of(best_of(trials, 2)) == [0, 2]
    assert layers_of(best_of(screened((0.9, 1.0), (0.8, 8.0), (0.1, 1.0), (0.2, 2.0)), 3)) == [0, 1, 2]
    assert len(best_of(trials, 99)) == 4


def test_a_loss_of_nan_is_the_worst_in_a_screening() -> None:
    assert layers_of(best_of(screened((0.5, 3.0), (0.5, math.nan), (0.5, 1.0), (0.5, 2.0)), 3)) == [2, 3, 0]


def test_matrices_whose_effects_are_not_finite_are_not_proposed() -> None:
    good, bad = WeightSite(1, MatrixType.UP), WeightSite(0, MatrixType.UP)
    changes = {good: torch.tensor([-1.0, -2.0, -1.0, -3.0]), bad: torch.tensor([-1.0, math.nan, -1.0, -1.0])}
    effects = {site: Effects(change, change) for site, change in changes.items()}
    shapes = {bad: (4, 4), good: (4, 4)}
    proposed = predicted_candidates(effects, shapes, top_matrices=1, rank_fractions=None)
    assert {edit.site for edit in proposed} == {good}
    with pytest.raises(DecompositionError, match="not finite for any matrix.*--dtype float32.*--strategy exhaustive"):
        predicted_candidates({bad: effects[bad]}, {bad: (4, 4)}, top_matrices=1, rank_fractions=None)
