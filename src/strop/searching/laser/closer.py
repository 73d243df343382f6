"""A closer look at the ranks around those that did best."""

from collections.abc import Callable, Mapping, Sequence

from strop.interventions import RankReduction
from strop.linalg import fraction_for_rank, rank_for_fraction
from strop.proving import Trial
from strop.searching.laser.candidates import Shapes, in_subspaces
from strop.searching.laser.plan import LASER_RANK_FRACTIONS, SearchPlan

CLOSE_RANK_FRACTIONS = (0.005, 0.01, 0.02, 0.035, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4,
                        0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975)  # fmt: skip
"""The steps on which a rank is moved up and down: by a factor below one half, evenly above it, where cuts are mild."""

LOOKED_AT = 2
"""How many matrices are looked at more closely."""


def neighbours(edit: RankReduction, shapes: Shapes, plan: SearchPlan) -> list[RankReduction]:
    """Return the next deeper and the next milder cut of an edit's matrix; where rank fractions are given, of those only.

    Args:
        edit: whose rank to move.
        shapes: of the matrices, by site.
        plan: its strategy and rank fractions say how ranks are spelled.
    """
    shape = shapes[edit.site]
    fractions = list(
        plan.rank_fractions or (() if plan.strategy in ("gradient", "data-free") else LASER_RANK_FRACTIONS)
    )
    if plan.rank_fractions is None:
        ranks = {max(1, rank_for_fraction(fraction, shape)) for fraction in CLOSE_RANK_FRACTIONS}
        fractions += [fraction_for_rank(rank, shape) for rank in ranks]
    plain = [RankReduction(edit.site, fraction) for fraction in fractions]
    alike = in_subspaces(plain, shapes, subspaces=(edit.subspaces,), axis=edit.axis, partition=edit.partition)
    by_rank = {other.rank(shape): other for other in reversed(alike)}  # the first of equal ranks
    own = edit.rank(shape)
    deeper, milder = [rank for rank in by_rank if rank < own], [rank for rank in by_rank if rank > own]
    return [by_rank[rank] for rank in (*sorted(deeper)[-1:], *sorted(milder)[:1])]


def look_closer(
    trials: Mapping[RankReduction, Trial],
    shapes: Shapes,
    plan: SearchPlan,
    *,
    try_each: Callable[[Sequence[RankReduction]], Mapping[RankReduction, Trial]],
) -> dict[RankReduction, Trial]:
    """Return trials with those of ranks around the best: of the best few matrices, up and down as long as it helps.

    Args:
        trials: of single edits on the same model and examples.
        shapes: of the matrices, by site.
        plan: its strategy and rank fractions say which ranks there are.
        try_each: tries edits, as far as the budget reaches.
    """
    found = dict(trials)
    in_order = sorted(trials, key=lambda edit: trials[edit].merit, reverse=True)
    for site in list(dict.fromkeys(edit.site for edit in in_order))[:LOOKED_AT]:
        while True:
            here = [edit for edit in found if edit.site == site]
            best = max(here, key=lambda edit: found[edit].merit)
            tried = {(edit.subspaces, edit.rank(shapes[site])) for edit in here}
            new = [
                edit
                for edit in neighbours(best, shapes, plan)
                if (edit.subspaces, edit.rank(shapes[site])) not in tried
            ]
            scored = try_each(new) if new else {}
            found |= scored
            if all(trial.merit <= found[best].merit for trial in scored.values()):
                break
    return dict(sorted(found.items(), key=lambda entry: (entry[0].site, entry[0].rank_fraction)))
