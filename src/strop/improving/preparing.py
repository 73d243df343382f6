"""Before a race begins: that somebody is in it, and what several methods need of a model, made once and paid for by none."""

from collections.abc import Mapping, Sequence

from strop.anatomy import editable_shapes
from strop.errors import UsageError
from strop.improving.contenders import CONTENDERS, Contender, Texts
from strop.improving.plan import EFFORTS, ImprovePlan
from strop.proving import Assignment, Journal, texts_beside_drift
from strop.scoring import writes
from strop.searching.fisher import FISHER_TEXTS
from strop.tasks import Task
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


def refuse_no_contender(
    task: Task, plan: ImprovePlan, contenders: Sequence[Contender], left_out: Mapping[str, tuple[Contender, str]]
) -> None:
    """Raise UsageError if nobody is in the running: the preset has nobody of the families, or all of them are left out.

    Args:
        task: to be improved at.
        plan: which families are asked for, and how much is tried.
        contenders: who is in the running.
        left_out: who is not, and why.
    """
    if contenders:
        return
    asked = [(name, why) for name, (own, why) in left_out.items() if own.family in plan.families]
    if asked:
        name, why = asked[0]
        raise UsageError(f"Nothing is left to try for task {task.name}: {name}: {why}")
    having = [
        preset
        for preset, effort in EFFORTS.items()
        if any(CONTENDERS[name].family in plan.families for name in effort.contenders)
    ]
    raise UsageError(
        f"The preset {plan.preset} has nothing of the families {', '.join(plan.families)} (--families): take --preset "
        f"{having[0]}, or other families."
    )
