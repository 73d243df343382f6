"""One more edit on top of a composition."""

from strop.searching.laser.closer import look_closer
from strop.searching.laser.composition import Composition, Trying


def grown(trying: Trying, composition: Composition) -> list[Composition]:
    """Return all that is tried of one more edit on top of a composition, the strategy's way.

    Where edits are composed, the ranks around the best are looked at more closely: the more a model is edited already, the
    milder the next cut, and a strategy's own steps are wide there.

    Args:
        trying: what tries edits.
        composition: to go on from.
    """
    edits, number = composition.edits, len(composition.edits) + 1
    if not trying.has_room(edits):
        return []
    left, plan = trying.left(edits), trying.plan
    with trying.on(edits):
        trials = trying.try_all(number, left)
        if plan.moves_ranks:
            trials = look_closer(
                trials,
                left,
                plan,
                try_each=lambda closer: trying.try_each(number, closer, trying.every, "looking closer at"),
            )
    return [Composition((*edits, edit), trial) for edit, trial in trials.items()]
