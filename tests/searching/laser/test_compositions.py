"""Compositions: what each of them chooses, worked out by hand or by trying everything."""

import dataclasses
import itertools
import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from tests.fixtures.judging import Edits, Judged, Scripted, chosen, edits_on
from tests.fixtures.runs import Notes

from strop.anatomy import MatrixType
from strop.proving import Budget, Guard, Study, Trial
from strop.searching import SearchPlan

pytestmark = pytest.mark.thorough

RANKS = (0.25, 0.5, 0.75)
PLAN = SearchPlan(
    strategy="exhaustive", compose="greedy", matrix_types=(MatrixType.UP,), layers=(0, 1, 2), rank_fractions=RANKS
)
GREEDY, BEAM, ORDERED = (
    PLAN,
    dataclasses.replace(PLAN, compose="beam", beam=2),
    dataclasses.replace(PLAN, compose="ordered"),
)
COMPOSED = {"greedy": GREEDY, "beam": BEAM, "ordered": ORDERED}


def adding_up(single: Mapping[int, Mapping[float, float]], together: Mapping[frozenset[int], float]) -> Any:
    """Return a rule: what edits do alone, and what their layers do together; a rank that is not given does harm."""

    def rule(edits: Edits) -> float:
        layers = frozenset(layer for layer, _ in edits)
        alone = sum(single.get(layer, {}).get(share, 0.1) for layer, share in edits)
        return 10 + alone + sum(change for among, change in together.items() if among <= layers)

    return rule


def at_random(seed: int) -> Callable[[Edits], float]:
    """Return a rule without a rule: each set of edits has a loss of its own, by and large the lower the more there are."""
    return lambda edits: random.Random(f"{seed} {sorted(edits)}").random() / (1 + len(edits)) if edits else 1.0


# Greedy


def test_an_edit_taken_earlier_is_cut_less_where_select_then_improves(judged: Judged) -> None:
    def rule(edits: Edits) -> float:
        shares = dict(edits)
        alone = {0: {0.25: -3.0, 0.5: -2.0}, 1: {0.25: -2.5}}
        both = 1.5 if shares.get(0) == 0.25 and 1 in shares else 0.0
        return 10 + sum(alone.get(layer, {}).get(share, 0.1) for layer, share in edits) + both

    notes = Notes()
    found = judged.choose(GREEDY, rule, progress=notes)
    assert chosen(found) == {(0, 0.5), (1, 0.25)}
    assert found.best.loss == 5.5
    assert [edit.site.layer for edit in found.edits.interventions] == [0, 1]  # in the place of the one it replaces
    taken = [line.split(":")[0] for line in notes.lines if "rank" in line]
    assert taken == ["edit 1", "edit 2", "edit 1 revised"]
    assert (
        "edit 1 revised: layer 0 up, 50.00% of the rank kept (rank 16): accuracy 0.0000, loss 5.5000 on select"
        in notes.lines
    )


def test_an_edit_that_others_make_needless_is_left_out(judged: Judged) -> None:
    single = {0: {0.25: -3.0}, 1: {0.25: -2.9}, 2: {0.25: -2.8}}
    rule = adding_up(single, {frozenset({1, 2}): -2.0, frozenset({0, 1, 2}): 4.0})
    notes = Notes()
    found = judged.choose(GREEDY, rule, progress=notes)
    assert chosen(found) == {(1, 0.25), (2, 0.25)}
    assert found.best.loss == pytest.approx(10 - 2.9 - 2.8 - 2.0)
    assert any(line.startswith("edit 1 left out: layer 0 up, 25.00%") for line in notes.lines)


def test_without_composition_nothing_is_revised_and_no_closer_look_is_taken(judged: Judged) -> None:
    single = dataclasses.replace(PLAN, compose="none", rank_fractions=None)
    found = judged.choose(single, adding_up({0: {0.4: -3.0, 0.2: -2.9}, 1: {0.8: -2.0}}, {}))
    assert chosen(found) == {(0, 0.4)}
    assert len(judged.asked) == 1 + 3 * 8  # 0.5 % and 1 % of 32 are no rank at all, and one


@pytest.mark.parametrize("seed", range(2, 4))
def test_what_greedy_ends_with_no_single_change_makes_better_and_nothing_is_scored_twice(
    judged: Judged, seed: int
) -> None:
    rule = at_random(seed)
    study = Study(None, name="counted")
    found = judged.choose(GREEDY, rule, study=study)
    edits = dict(chosen(found))
    assert edits
    changes = [{**edits, layer: share} for layer in range(3) if layer not in edits for share in RANKS]
    for layer, share in edits.items():
        place = RANKS.index(share)
        changes += [{**edits, layer: RANKS[near]} for near in (place - 1, place + 1) if 0 <= near < len(RANKS)]
        changes.append({kept: own for kept, own in edits.items() if kept != layer})
    assert found.best.loss == rule(frozenset(edits.items())) < min(rule(frozenset(own.items())) for own in changes)
    assert len(judged.asked) == len(set(judged.asked)) == len(study.trials())


def test_edits_are_taken_only_up_to_the_most_that_are_allowed_and_still_revised(judged: Judged) -> None:
    single = {0: {0.25: -3.0, 0.5: -2.9}, 1: {0.25: -2.0}, 2: {0.25: -1.0}}
    rule = adding_up(single, {})
    both = dataclasses.replace(GREEDY, max_edits=2)
    assert chosen(judged.choose(both, rule)) == {(0, 0.25), (1, 0.25)}
    dear = lambda edits: rule(edits) + (0.9 if {(0, 0.25), (1, 0.25)} <= edits else 0.0)  # noqa: E731
    assert chosen(judged.choose(both, dear)) == {(0, 0.5), (1, 0.25)}


def test_many_revisions_are_screened_on_the_sample_first(judged: Judged) -> None:
    plan = dataclasses.replace(GREEDY, strategy="exhaustive", gradient_examples=8, finalists=2)
    single = {layer: {0.25: -1.0, 0.5: -1.5 + 0.1 * layer, 0.75: -1.1} for layer in range(3)}
    judged.choose(plan, adding_up(single, {}))
    screened = [edits for edits, count in zip(judged.asked, judged.examples, strict=True) if count == 8]
    assert screened  # the strategy itself screens none
    assert any(len(edits) > 1 for edits in screened)
    assert set(judged.examples) == {8, 24}


# Beam


TRAP = adding_up(
    {0: {0.5: -3.0}, 1: {0.5: -2.0}, 2: {0.5: -1.9}},
    {frozenset({0, 1}): 9.0, frozenset({0, 2}): 9.0, frozenset({1, 2}): -3.0},
)
"""The best edit alone stands in the way of the best two."""


def test_a_beam_finds_what_the_best_first_edit_stands_in_the_way_of(judged: Judged) -> None:
    assert chosen(judged.choose(GREEDY, TRAP)) == {(0, 0.5)}
    assert chosen(judged.choose(dataclasses.replace(BEAM, beam=1), TRAP)) == {(0, 0.5)}
    found = judged.choose(BEAM, TRAP)
    assert chosen(found) == {(1, 0.5), (2, 0.5)}
    assert found.best.loss == pytest.approx(3.1)


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("seed", range(2))
def test_a_beam_goes_on_from_the_best_few_sets_and_scores_each_set_once(judged: Judged, width: int, seed: int) -> None:
    rule = at_random(seed)
    found = judged.choose(dataclasses.replace(BEAM, beam=width), rule)
    row: list[Edits] = [frozenset()]
    best, asked = frozenset[Any](), {frozenset[Any]()}
    while row:
        longer: set[Edits] = set()
        for one in row:
            left = set(range(3)) - {layer for layer, _ in one}
            children = [one | {(layer, share)} for layer in left for share in RANKS]
            asked |= set(children)
            longer |= {child for child in children if rule(child) < rule(one)}
        row = sorted(longer, key=rule)[:width]
        best = min([best, *row], key=rule)
    assert chosen(found) == best
    assert set(judged.asked) == asked
    assert len(judged.asked) == len(asked)


# The paper's order


def test_the_papers_order_visits_the_last_layer_and_the_smallest_rank_first_and_rolls_back(judged: Judged) -> None:
    single = {2: {0.25: 1.0, 0.5: -1.0, 0.75: -0.5}, 1: {0.25: 3.0, 0.5: 2.0, 0.75: 1.0}, 0: {0.25: -0.5, 0.75: -2.0}}
    rule = adding_up(single, {})
    found = judged.choose(ORDERED, rule)
    kept, expected = frozenset[tuple[int, float]](), [frozenset[tuple[int, float]]()]
    for layer in (2, 1, 0):
        below = frozenset(edit for edit in kept if edit[0] != layer)
        for share in RANKS:
            expected.append(below | {(layer, share)})
            if rule(expected[-1]) < rule(kept):
                kept = expected[-1]
    assert judged.asked == expected
    assert chosen(found) == kept == {(2, 0.5), (0, 0.75)}
    assert not any((1, share) in edits for edits in expected[-3:] for share in RANKS)
    assert found.best.loss == rule(kept)


def test_the_papers_order_takes_what_is_strictly_better_only_and_as_many_as_are_allowed(judged: Judged) -> None:
    assert chosen(judged.choose(ORDERED, lambda _: 1.0)) == frozenset()
    less = adding_up({layer: {0.25: -1.0, 0.5: -1.0} for layer in range(3)}, {})
    assert chosen(judged.choose(ORDERED, less)) == {(layer, 0.25) for layer in range(3)}
    assert chosen(judged.choose(dataclasses.replace(ORDERED, max_edits=2), less)) == {(2, 0.25), (1, 0.25)}


# All of them


@pytest.mark.parametrize("compose", COMPOSED)
def test_no_edit_wins_where_none_helps(judged: Judged, compose: str) -> None:
    found = judged.choose(COMPOSED[compose], len)
    assert chosen(found) == frozenset()
    assert found.best == found.unedited


HARM = {0.25: 3.0, 0.5: 2.0, 0.75: 1.0}


@pytest.mark.parametrize("compose", COMPOSED)
def test_a_guard_is_asked_about_the_whole_composition_and_none_that_breaks_it_is_built_on(
    judged: Judged, compose: str
) -> None:
    rule = adding_up({layer: {0.25: -3.0, 0.5: -2.0, 0.75: -1.0} for layer in range(3)}, {})
    drift = lambda edits: sum(HARM[edit.rank_fraction] for edit in edits)  # noqa: E731
    scripted = Scripted(drift)
    study = Study(None, name="guarded")
    found = judged.choose(COMPOSED[compose], rule, guard=Guard(scripted, 4.0), study=study)
    assert sum(HARM[share] for _, share in chosen(found)) == 4.0
    assert len(scripted.readings) == len({frozenset(edits) for edits in scripted.readings})
    refused = {frozenset(edits) for edits in scripted.readings if drift(edits) > 4.0}
    assert refused
    built_on = [{(below["layer"], below["rank_fraction"]) for below in trial.key.below} for trial in study.trials()]
    assert all(sum(HARM[share] for _, share in below) <= 4.0 for below in built_on)
    assert edits_on(judged.model) == frozenset()


@pytest.mark.parametrize("compose", COMPOSED)
def test_a_budget_is_kept_and_the_best_so_far_is_chosen(judged: Judged, compose: str) -> None:
    rule = at_random(1)
    judged.choose(COMPOSED[compose], rule)
    whole = len(judged.asked)
    for limit in (1, 8, whole - 1, whole + 1):
        study = Study(None, name="bounded")
        found = judged.choose(COMPOSED[compose], rule, budget=Budget(evaluations=limit), study=study)
        assert len(study.trials()) == min(limit, whole)
        assert found.best.loss == rule(chosen(found)) <= rule(frozenset())
        if compose != "ordered" and limit > 1:
            first = min(rule(edits) for edits in judged.asked if len(edits) <= 1)
            assert found.best.loss <= first


@pytest.mark.parametrize("compose", COMPOSED)
def test_a_composition_cut_short_goes_on_and_ends_as_if_it_had_not_been(
    judged: Judged, compose: str, finished_trials: Callable[..., list[Trial]]
) -> None:
    plan, rule = COMPOSED[compose], at_random(3)
    odd = lambda edits: float(random.Random(f"{sorted(map(str, edits))}").random() < 0.4)  # noqa: E731

    def guard() -> Guard:
        return Guard(Scripted(odd), 0.5)

    whole = judged.choose(plan, rule, guard=guard())
    count = len(judged.asked)
    stop = count - 2
    study = Study(None, name="cut")
    finished = finished_trials(stop)
    with pytest.raises(KeyboardInterrupt):
        judged.choose(plan, rule, study=study, guard=guard())
    spent = Budget(evaluations=stop)  # it was killed as that was spent
    straight = judged.choose(plan, rule, guard=guard(), budget=spent)
    again = judged.choose(plan, rule, study=study, guard=guard(), budget=spent)
    assert again.edits.interventions == straight.edits.interventions
    assert again.best.loss == straight.best.loss
    assert again.tokens == straight.tokens
    finished.clear()
    more = judged.choose(plan, rule, study=study, guard=guard())
    assert more.edits.interventions == whole.edits.interventions
    assert more.tokens == whole.tokens
    assert len(finished) == 2
    assert len(study.trials()) == count


def test_a_trial_says_what_it_stands_on_and_its_proposals_are_kept_by_that(judged: Judged) -> None:
    study = Study(None, name="said")
    judged.choose(BEAM, TRAP, study=study)
    sets = [
        frozenset((each["layer"], each["rank_fraction"]) for each in (trial.key.candidate, *trial.key.below) if each)
        for trial in study.trials()
    ]
    assert len(sets) == len(set(sets))
    assert sets == judged.asked
    assert all(trial.key.round == len(trial.key.below) + bool(trial.key.candidate) for trial in study.trials())


def test_of_all_compositions_a_wide_beam_finds_the_best_that_lies_on_a_path_that_improves(judged: Judged) -> None:
    rule = at_random(7)
    found = judged.choose(dataclasses.replace(BEAM, beam=99), rule)
    every = [
        frozenset((layer, share) for layer, share in zip(range(3), shares, strict=True) if share is not None)
        for shares in itertools.product((None, *RANKS), repeat=3)
    ]
    reached = {frozenset[tuple[int, float]]()}
    for edits in sorted(every, key=len):
        reached |= {edits} & {edits for one in edits if edits - {one} in reached and rule(edits) < rule(edits - {one})}
    assert rule(chosen(found)) == min(map(rule, reached))
    assert math.isfinite(found.best.loss)
