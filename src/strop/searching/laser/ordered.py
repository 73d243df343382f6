"""LASER's composition: from the last layer down, the smallest rank first."""

import itertools

from strop.searching.laser.composition import Composition, Trying


def ordered(trying: Trying, begin: Composition) -> Composition:
    """Visit each edit (τ, ℓ, ρ) once and keep it where it makes the model better.

    The largest ℓ comes first and then the smallest ρ (Sharma, Ash and Misra, LASER, arXiv 2312.13558); an edit
    is kept where select is strictly better with it than with what there is, in the place of an edit of the same matrix that
    was kept before, and otherwise is as if it had not been tried.

    Args:
        trying: what tries edits; all that its strategy proposes on the model as it stands are visited.
        begin: the model as it stands.
    """
    best = begin
    visited = sorted(trying.propose(), key=lambda edit: (-edit.site.layer, edit.site, edit.rank_fraction))
    for _, at_site in itertools.groupby(visited, key=lambda edit: edit.site):
        candidates = list(at_site)
        if not trying.has_room(best.edits):
            break
        number = len(best.edits) + 1
        with trying.on(best.edits):
            trials = trying.try_each(number, candidates, trying.every, "visiting")
        better = [Composition((*best.edits, edit), trial) for edit, trial in trials.items() if trial.merit > best.merit]
        for taken in trying.admitted(better):  # the best of a matrix is what taking one after the other ends with
            best = taken
            trying.tell(f"edit {number}", taken.edits[-1], taken.trial)
        if len(trials) < len(candidates):
            trying.tell_end(best.edits)
            break
    return best
