"""The best few compositions side by side, each with one more edit, and so on."""

from strop.searching.laser.composition import Composition, Trying
from strop.searching.laser.growing import grown


def beam(trying: Trying, begin: Composition) -> Composition:
    """Go on from the best few partial compositions at once, and return the best of all.

    In each round every one of them is tried with one more edit; of all that beat the one they stand on, the best
    `beam_width` are gone on from. The same edits taken in another order are one composition.

    Args:
        trying: what tries edits.
        begin: the model as it stands.
    """
    best, row = begin, [begin]
    while any(trying.has_room(one.edits) for one in row):
        found: dict[frozenset[object], Composition] = {}
        for one in row:
            for longer in grown(trying, one):
                if longer.merit > one.merit:
                    found.setdefault(frozenset(longer.edits), longer)
        row = trying.admitted(found.values(), count=trying.plan.beam_width)
        if not row:
            trying.tell_end(best.edits)
            break
        for place, one in enumerate(row, 1):
            on = f" on {', '.join(str(edit.site) for edit in one.edits[:-1])}" if one.edits[:-1] else ""
            trying.tell(f"edit {len(one.edits)}, place {place}{on}", one.edits[-1], one.trial)
        best = max(best, row[0], key=lambda one: one.merit)
    return best
