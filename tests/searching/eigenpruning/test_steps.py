"""Which components a step takes: the laws, with made-up effects."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strop.anatomy import MatrixType, WeightSite
from strop.errors import DecompositionError
from strop.proving import Study, Trial
from strop.searching import Effects, PrunePlan
from strop.searching.effects import refuse_unknown_effects
from strop.searching.eigenpruning.plan import FRACTIONS
from strop.searching.eigenpruning.steps import (
    PruningStep,
    Removal,
    removal_by,
    space_of,
    steps_of,
)

T = MatrixType
ALL = tuple(T)
law = settings(deadline=None, max_examples=80, database=None)

SITES = st.one_of(
    st.builds(WeightSite, st.integers(0, 3), st.sampled_from([T.UP, T.DOWN])),
    st.builds(WeightSite, st.integers(0, 3), st.sampled_from([T.KEY, T.VALUE]), head=st.integers(0, 2)),
    st.builds(WeightSite, st.integers(0, 1), st.sampled_from([T.UP, T.DOWN]), expert=st.integers(0, 2)),
)
FIGURES = st.one_of(st.floats(-9, 9), st.sampled_from([0.0, math.nan, math.inf, -math.inf]))


def effects_of(rows: Sequence[tuple[float, float]]) -> Effects:
    change, score = torch.tensor(rows, dtype=torch.float64).T
    return Effects(loss_change=change, score=score)


EFFECTS = st.dictionaries(
    SITES,
    st.lists(st.tuples(FIGURES, FIGURES), min_size=1, max_size=12).map(effects_of),
    min_size=1,
    max_size=10,
)
BITES = st.builds(
    PruningStep,
    st.sampled_from(["global", "per-type", "per-matrix"]),
    st.sets(st.sampled_from([T.UP, T.DOWN, T.KEY, T.VALUE]), min_size=1).map(lambda kinds: tuple(sorted(kinds))),
    st.floats(0.001, 0.999),
)
Component = tuple[WeightSite, int]


def components_in(removal: Removal) -> list[Component]:
    return [(site, index) for site, indices in removal.items() for index in indices]


def may_go(effects: Effects, index: int, allow_harmful: bool) -> bool:
    change, score = float(effects.loss_change[index]), float(effects.score[index])
    return math.isfinite(change) and math.isfinite(score) and (allow_harmful or change <= -1e-6)


def pools_of(step: PruningStep, effects: dict[WeightSite, Effects]) -> list[list[Component]]:
    """All components a step may be of, by what its fraction is a fraction of."""
    pools: dict[Any, list[Component]] = {}
    for site, found in effects.items():
        if site.matrix_type in step.matrix_types:
            whole = (site.layer, site.matrix_type, site.expert)
            key = {"global": "all", "per-type": site.matrix_type, "per-matrix": whole}[step.scope]
            pools.setdefault(key, []).extend((site, index) for index in range(len(found.score)))
    return list(pools.values())


@st.composite
def situations(draw: st.DrawFn) -> tuple[dict[WeightSite, Effects], Removal]:
    """Effects, and what is gone already."""
    effects = draw(EFFECTS)
    removed = {}
    for site, found in effects.items():
        gone = draw(st.sets(st.integers(0, len(found.score) - 1), max_size=3))
        if gone:
            removed[site] = tuple(sorted(gone))
    return effects, removed


@law
@given(situations(), BITES, st.booleans())
def test_a_step_takes_its_share_of_each_pool_or_all_that_may_go_of_it(
    situation: tuple[dict[WeightSite, Effects], Removal], step: PruningStep, allow_harmful: bool
) -> None:
    effects, removed = situation
    after = removal_by(step, effects, removed, allow_harmful=allow_harmful)
    before = set(components_in(removed))
    taken = set(components_in(after)) - before
    assert before <= set(components_in(after))
    assert all(list(indices) == sorted(set(indices)) for indices in after.values())  # none twice
    for pool in pools_of(step, effects):
        open_ones = [c for c in pool if c not in before and may_go(effects[c[0]], c[1], allow_harmful)]
        of_pool = taken & set(pool)
        assert len(of_pool) == min(round(step.fraction * len(pool)), len(open_ones))
        assert of_pool <= set(open_ones)
        scores = {c: float(effects[c[0]].score[c[1]]) for c in open_ones}
        left = set(open_ones) - of_pool
        assert not of_pool or not left or max(map(scores.get, of_pool)) <= min(map(scores.get, left))
        taken -= of_pool
    assert not taken  # of no other matrix type


@law
@given(situations(), BITES, st.floats(0.001, 0.999), st.booleans())
def test_a_bigger_step_holds_the_smaller(
    situation: tuple[dict[WeightSite, Effects], Removal], step: PruningStep, other: float, allow_harmful: bool
) -> None:
    effects, removed = situation
    small, large = (
        removal_by(PruningStep(step.scope, step.matrix_types, share), effects, removed, allow_harmful=allow_harmful)
        for share in sorted([step.fraction, other])
    )
    assert set(components_in(small)) <= set(components_in(large))


def test_what_was_removed_before_is_left_as_it_was() -> None:
    key, up = WeightSite(0, T.KEY, head=0), WeightSite(0, T.UP)
    effects = {key: effects_of([(-1, -1), (-2, -2)]), up: effects_of([(-3, -3), (-4, -4)])}
    removed = {key: (1,)}
    after = removal_by(PruningStep("global", (T.KEY, T.UP), 0.25), effects, removed, allow_harmful=False)
    assert after == {key: (1,), up: (1,)}
    assert removed == {key: (1,)}
    assert removal_by(PruningStep("global", (T.KEY,), 0.5), effects, removed, allow_harmful=False) == {key: (0, 1)}


def test_each_scope_shares_out_on_its_own() -> None:
    """The heads of one matrix are one pool, and a matrix whose scores are high gives its share per matrix only."""
    first, second = WeightSite(0, T.KEY, head=0), WeightSite(0, T.KEY, head=1)
    upper, up = WeightSite(1, T.KEY, head=0), WeightSite(0, T.UP)
    effects = {
        first: effects_of([(-1, -50), (-1, -51)]),
        second: effects_of([(-1, -52), (-1, -53)]),
        upper: effects_of([(-1, -10), (-1, -11), (-1, -12), (-1, -13)]),
        up: effects_of([(-1, -1), (-1, -2), (-1, -3), (-1, -4)]),
    }
    for scope, expected in (
        ("global", {second: (0, 1), first: (1,)}),
        ("per-type", {second: (0, 1), up: (3,)}),
        ("per-matrix", {second: (1,), upper: (3,), up: (3,)}),
    ):
        step = PruningStep(scope, (T.KEY, T.UP), 0.25)  # type: ignore[arg-type]
        assert removal_by(step, effects, {}, allow_harmful=False) == expected, scope


def test_a_share_of_less_than_half_a_component_takes_nothing() -> None:
    effects = {WeightSite(0, T.UP): effects_of([(-1, -1)] * 10)}
    assert removal_by(PruningStep("global", (T.UP,), 0.04), effects, {}, allow_harmful=False) == {}


def test_a_gain_below_rounding_is_none_however_low_the_score() -> None:
    site = WeightSite(0, T.UP)
    effects = {site: effects_of([(-1e-8, -9), (-0.1, -1), (0.1, -7)])}
    step = PruningStep("global", (T.UP,), 0.9)
    assert removal_by(step, effects, {}, allow_harmful=False) == {site: (1,)}
    assert removal_by(step, effects, {}, allow_harmful=True) == {site: (0, 1, 2)}


def test_effects_none_of_which_is_finite_are_refused_with_the_remedy() -> None:
    site, other = WeightSite(0, T.UP), WeightSite(1, T.UP)
    broken = effects_of([(math.nan, math.nan), (math.inf, 1.0)])
    refuse_unknown_effects({site: broken, other: effects_of([(math.nan, math.nan), (-1, -1)])})
    with pytest.raises(
        DecompositionError, match=r"not finite for any matrix.*float32 \(--dtype float32\).*infinite\.$"
    ):
        refuse_unknown_effects({site: broken, other: broken})


# The steps of a round


def test_a_round_tries_every_fraction_of_all_matrix_types_at_once() -> None:
    steps = steps_of(PrunePlan(), [T.KEY, T.UP])
    assert [step.fraction for step in steps] == sorted(FRACTIONS)
    assert {(step.scope, step.matrix_types) for step in steps} == {("global", (T.KEY, T.UP))}


def test_each_scope_and_on_demand_each_matrix_type_is_tried() -> None:
    plan = PrunePlan(scopes=("global", "per-type", "per-matrix"), fractions=(0.2, 0.1), search_types=True)
    steps = steps_of(plan, [T.KEY, T.UP])
    assert len(set(steps)) == len(steps) == 2 * (3 + 2 + 2)
    alone = [step for step in steps if len(step.matrix_types) == 1]
    assert {(step.scope, step.matrix_types) for step in alone} == {
        (scope, (kind,))
        for scope in ("global", "per-matrix")
        for kind in (T.KEY, T.UP)  # per type says the same
    }
    per_type = PrunePlan(scopes=("per-type",), fractions=(0.1,), search_types=True)
    assert [step.matrix_types for step in steps_of(per_type, [T.KEY, T.UP])] == [(T.KEY, T.UP), (T.KEY,), (T.UP,)]


def test_a_single_matrix_type_is_tried_once() -> None:
    plan = PrunePlan(fractions=(0.1,), search_types=True)
    assert steps_of(plan, [T.KEY]) == [PruningStep("global", (T.KEY,), 0.1)]


def test_fractions_of_one_kind_stand_together_from_small_to_large() -> None:
    plan = PrunePlan(scopes=("per-type", "global"), fractions=(0.3, 0.1, 0.2), search_types=True)
    kinds = [(step.scope, step.matrix_types) for step in steps_of(plan, list(T)[:3])]
    assert kinds == [kind for kind in dict.fromkeys(kinds) for _ in range(3)]
    assert [step.fraction for step in steps_of(plan, list(T)[:3])] == [0.1, 0.2, 0.3] * (len(kinds) // 3)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (PruningStep("global", (T.KEY,), 0.00002), "0.002 % of key"),
        (PruningStep("global", (T.KEY, T.UP), 0.0005), "0.05 % of key,up"),
        (PruningStep("per-matrix", (T.UP,), 0.2), "20 % of up per-matrix"),
    ],
)
def test_a_step_reads_as_words_that_tell_the_smallest_from_nothing(step: PruningStep, words: str) -> None:
    assert str(step) == words


def test_steps_come_back_from_a_study_on_disk(tmp_path: Path) -> None:
    steps = steps_of(PrunePlan(scopes=("global", "per-matrix"), search_types=True), ALL)
    space, storage = space_of(steps), f"sqlite:///{tmp_path / 'study.db'}"
    keys = [space.key(step, stage="choice", round=1, split="train", examples=9) for step in steps[::4]]
    study = Study(storage, name="prune", spaces=[space])
    study.enqueue(keys)
    while (claim := study.claim()) is not None:
        with claim:
            claim.finish(Trial(claim.key, 0.5, 1.0))
    again = Study(storage, name="prune", spaces=[space]).trials()
    assert [space.candidate(trial.key) for trial in again] == steps[::4]
