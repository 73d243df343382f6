"""The best edit, then the best one on top of it, and so on; what was taken may be taken back."""

from strop.searching.laser.closer import neighbours
from strop.searching.laser.composition import Composition, Step, Trying
from strop.searching.laser.growing import grown


def greedy(trying: Trying, begin: Composition) -> Composition:
    """Add edits as long as they help, the best one first; with `compose="greedy"` revise those taken before.

    After each addition, an edit that was taken earlier may be cut deeper or less, or left out, where select says so. Whatever
    is done makes the model strictly better on select, so no composition comes back and the search ends.

    Args:
        trying: what tries edits.
        begin: the model as it stands.
    """
    best, revises = begin, trying.plan.moves_ranks
    while True:
        added = _added(trying, best)
        best = added or best
        revised = _revised(trying, best, settled=len(best.edits) - bool(added)) if revises else None
        best = revised or best
        if not added and not revised:
            return best


def _added(trying: Trying, composition: Composition) -> Composition | None:
    """Return a composition with the best edit on top, or None where nothing beats it."""
    if not trying.has_room(composition.edits):
        return None
    better = [one for one in grown(trying, composition) if one.merit > composition.merit]
    for taken in trying.admitted(better):
        trying.tell(f"edit {len(taken.edits)}", taken.edits[-1], taken.trial)
        return taken
    trying.tell_end(composition.edits)
    return None


def _revised(trying: Trying, composition: Composition, *, settled: int) -> Composition | None:
    """Return the best composition in which one edit is another, or left out, or None where none beats it.

    Args:
        trying: what tries edits.
        composition: to revise.
        settled: how many edits, from the first, may be revised.
    """
    edits = composition.edits
    steps: list[Step] = []
    for index, edit in enumerate(edits[:settled]):
        before, behind = edits[:index], edits[index + 1 :]
        steps += [Step((*before, other, *behind), other) for other in neighbours(edit, trying.shapes, trying.plan)]
        if rest := (*before, *behind):
            steps.append(Step(rest, rest[-1]))
    better = [one for one in trying.try_steps(steps, "revising with") if one.merit > composition.merit]
    for taken in trying.admitted(better):
        number, edit = next((at, edit) for at, edit in enumerate(edits, 1) if edit not in taken.edits)
        if len(taken.edits) < len(edits):
            trying.tell(f"edit {number} left out", edit, taken.trial)
        else:
            trying.tell(f"edit {number} revised", taken.edits[number - 1], taken.trial)
        return taken
    return None
