"""Which components a round may remove: a share of those considered, the most harmful first."""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
import torch
from torch import Tensor

from strop.anatomy import MatrixType, WeightSite
from strop.interventions import SingularValuePruning
from strop.proving import CandidateSpace
from strop.proving.trials import Setting
from strop.searching.effects import Effects
from strop.searching.eigenpruning.plan import PrunePlan, Scope

ROUNDING_NATS = 1e-6
"""A loss change predicted to be smaller is nothing but rounding, however consistent."""

Removal = Mapping[WeightSite, tuple[int, ...]]
"""For each matrix with any, the components that are removed, ascending."""


@dataclasses.dataclass(frozen=True)
class PruningStep:
    """A share of the components to remove at once."""

    scope: Scope
    matrix_types: tuple[MatrixType, ...]
    fraction: float

    def __str__(self) -> str:
        scope = "" if self.scope == "global" else f" {self.scope}"
        return f"{100 * self.fraction:g} % of {','.join(self.matrix_types)}{scope}"


def steps_of(plan: PrunePlan, considered: Sequence[MatrixType]) -> list[PruningStep]:
    """Return all steps a plan tries in a round.

    Args:
        plan: its scopes, fractions, and whether matrix types are tried alone too.
        considered: the matrix types there are to prune.
    """
    together = tuple(considered)
    groups = [together, *((one,) for one in together)] if plan.search_types and len(together) > 1 else [together]
    return [
        PruningStep(scope, group, fraction)
        for group in groups
        for scope in plan.scopes
        if not (scope == "per-type" and len(group) == 1 and "global" in plan.scopes)  # the same thing
        for fraction in sorted(plan.fractions)
    ]


def smaller_fraction(fractions: Sequence[float], fraction: float, rungs: int) -> float:
    """Return the fraction some rungs below another, or the smallest there is.

    >>> smaller_fraction((0.01, 0.02, 0.05), 0.05, 1)
    0.02
    """
    ladder = sorted(fractions)
    return ladder[max(0, ladder.index(fraction) - rungs)]


def space_of(steps: Sequence[PruningStep]) -> CandidateSpace[PruningStep]:
    """Return how steps are kept in a study."""
    distributions = optuna.distributions

    def spell(step: PruningStep) -> dict[str, Setting]:
        return {"scope": step.scope, "matrix_types": ",".join(step.matrix_types), "fraction": step.fraction}

    def read(settings: Mapping[str, Any]) -> PruningStep:
        types = tuple(MatrixType(name) for name in settings["matrix_types"].split(","))
        return PruningStep(settings["scope"], types, settings["fraction"])

    return CandidateSpace(
        SingularValuePruning.method,
        {
            "scope": distributions.CategoricalDistribution(sorted({step.scope for step in steps})),
            "matrix_types": distributions.CategoricalDistribution(
                sorted({",".join(step.matrix_types) for step in steps})
            ),
            "fraction": distributions.FloatDistribution(0.0, 1.0),
        },
        spell,
        read,
    )


def removal_by(
    step: PruningStep, effects: Mapping[WeightSite, Effects], removed: Removal, *, allow_harmful: bool
) -> Removal:
    """Return what is removed once a step is taken: what was removed before, and the components with the lowest scores.

    A component stays whose removal is predicted to raise the loss, or to lower it by no more than rounding, unless harm is
    allowed; one whose effect is not finite always stays. A step therefore takes its share or less.

    Args:
        step: how much, of what.
        effects: of each matrix's components.
        removed: before the step.
        allow_harmful: take components that are not predicted to help too.
    """
    pools: dict[object, list[WeightSite]] = defaultdict(list)
    for site in effects:
        if site.matrix_type in step.matrix_types:
            pools[_pool_of(site, step.scope)].append(site)
    after = dict(removed)
    for pool in pools.values():
        scores = {
            site: _open_scores(effects[site], removed.get(site, ()), allow_harmful=allow_harmful) for site in pool
        }
        for site, taken in _lowest(scores, step.fraction).items():
            after[site] = tuple(sorted((*removed.get(site, ()), *taken)))
    return after


def _pool_of(site: WeightSite, scope: Scope) -> object:
    match scope:
        case "global":
            return None
        case "per-type":
            return site.matrix_type
        case "per-matrix":
            return dataclasses.replace(site, head=None)


def _lowest(scores: Mapping[WeightSite, Tensor], fraction: float) -> dict[WeightSite, list[int]]:
    together = torch.cat(list(scores.values()))
    order = together.argsort(stable=True)[: round(fraction * together.shape[0])]
    ends = torch.tensor([found.shape[0] for found in scores.values()]).cumsum(0)
    chosen = order[torch.isfinite(together[order])]
    owners = torch.searchsorted(ends, chosen, right=True)
    sites = list(scores)
    taken: dict[WeightSite, list[int]] = defaultdict(list)
    for position, owner in zip(chosen.tolist(), owners.tolist(), strict=True):
        site = sites[owner]
        taken[site].append(position - int(ends[owner]) + scores[site].shape[0])
    return taken


def _open_scores(effects: Effects, removed: Sequence[int], *, allow_harmful: bool) -> Tensor:
    """Return the scores, infinite where a component is not to be taken."""
    change = effects.loss_change
    closed = ~torch.isfinite(effects.score) | ~torch.isfinite(change)
    if not allow_harmful:
        closed |= change > -ROUNDING_NATS
    closed[list(removed)] = True
    return effects.score.masked_fill(closed, torch.inf)
