"""What several methods need of a model before they begin, made once and paid for by none of them."""

from collections.abc import Mapping, Sequence

from strop.anatomy import editable_shapes
from strop.improving.contenders import Contender, Texts
from strop.proving import Assignment, Journal, texts_beside_drift
from strop.scoring import writes
from strop.searching.fisher import FISHER_TEXTS
from strop.training.fitter import KEPT_TEXTS

TEXTS: Mapping[Texts, int] = {"none": 0, "few": FISHER_TEXTS, "many": KEPT_TEXTS}
"""How many texts that is."""
AT_ONCE = 16
"""Texts that are written before the time is looked at."""

MOST_TO_PREPARE = 0.3
"""The share of the time that is spent on it at most; what is made by then is in the cache, and a later run goes on from there."""


def prepare(given: Assignment, contenders: Sequence[Contender], journal: Journal, *, until: float) -> int:
    """Decompose all matrices, and let the base write what methods read; return how many texts there are.

    Args:
        given: the model and the task.
        contenders: who will read it.
        journal: of the run.
        until: in seconds from the run's beginning.
    """
    if any(own.family != "prompt" for own in contenders):
        sites = list(editable_shapes(given.model, given.anatomy, layers=None, matrix_types=None, stack=None))
        journal.progress.start("decomposing all matrices", len(sites))
        for site in sites:
            if journal.stopwatch.seconds >= until:
                break
            given.decompose(given.anatomy.read_weight(given.model, site))
            journal.progress.advance()
    wanted = max(map(texts_of, contenders), default=0)
    if not writes(given.model, given.anatomy):
        return wanted
    written = 0
    while written < wanted and journal.stopwatch.seconds < until:
        written = min(written + AT_ONCE, wanted)
        texts_beside_drift(
            given.model, given.tokenizer, fingerprint=given.base.fingerprint, count=written, progress=journal.progress
        )
    return written


def texts_of(contender: Contender) -> int:
    """Return how many texts of the base's own, beside those of drift, a contender reads."""
    return TEXTS[contender.texts]
