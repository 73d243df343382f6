"""Before a race begins: that somebody is in it, and what several methods need of a model, made once and paid for by none."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from strop.anatomy import WeightSite, editable_shapes
from strop.errors import StropError, UsageError, reason_in
from strop.improving.contenders import CONTENDERS, Contender, Texts
from strop.improving.pace import PASSES_OF_GRADIENT, Pace
from strop.improving.plan import EFFORTS, ImprovePlan
from strop.progress import Progress
from strop.proving import Assignment, Journal, texts_beside_drift
from strop.scoring import writes
from strop.searching.decompositions import HeldDecompositions
from strop.searching.fisher import FISHER_TEXTS, OwnTexts, fisher_information
from strop.tasks import Task
from strop.training.fitter import KEPT_TEXTS
from strop.training.keep import KeepToBase, read_by
from strop.training.plan import TrainPlan

TEXTS: Mapping[Texts, int] = {"none": 0, "few": FISHER_TEXTS, "many": KEPT_TEXTS}
"""How many texts that is."""
AT_ONCE = 16
"""Texts that are written before the time is looked at."""

MOST_TO_PREPARE = 0.3
"""The share of the time that is spent on it at most; what is made by then is in the cache, and a later run goes on from there."""
MOST_FOR_A_READING = 1 / 6
"""The share of that for one reading of the base's texts: one that takes longer is paid for by whoever has a turn with it."""

NO_TEXTS = "the base had no time to write the texts it reads; they are kept, and another run goes on from there."
NO_DECOMPOSITIONS = (
    "there was no time to decompose all matrices; those that were are kept, and another run goes on from there."
)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What was made before a race, within its share of the time."""

    texts: int
    """Of the base's own, beside those of drift."""
    decomposed: bool
    """All matrices are, as far as anybody needs them."""
    done_at_seconds: float
    """From the run's beginning."""

    def lack_of(self, contender: Contender) -> str | None:
        """Return what a contender would need that there is not, in one sentence; None where it has all."""
        if contender.decomposes and not self.decomposed:
            return NO_DECOMPOSITIONS
        return NO_TEXTS if texts_of(contender) > self.texts else None


def prepare(
    given: Assignment, contenders: Sequence[Contender], journal: Journal, pace: Pace, *, until: float
) -> Prepared:
    """Decompose all matrices, let the base write what methods read, and read it for them, as far as the time reaches.

    Args:
        given: the model and the task.
        contenders: who will read it.
        journal: of the run.
        pace: of the machine.
        until: in seconds from the run's beginning.
    """
    begun, sites = journal.stopwatch.seconds, list[WeightSite]()
    if any(own.decomposes for own in contenders):
        sites += editable_shapes(given.model, given.anatomy, layers=None, matrix_types=None, stack=None)
    decomposed = _decompose(given, sites, journal, until=until)
    wanted = max(map(texts_of, contenders), default=0)
    if not writes(given.model, given.anatomy):
        return Prepared(wanted, decomposed, journal.stopwatch.seconds)
    written = 0
    while written < wanted and journal.stopwatch.seconds < until:
        written = min(written + AT_ONCE, wanted)
        texts_beside_drift(
            given.model, given.tokenizer, fingerprint=given.base.fingerprint, count=written, progress=journal.progress
        )
    most = MOST_FOR_A_READING * (until - begun)
    kinds = {own.texts for own in contenders}
    for kind, passes, read in READINGS:
        if kind not in kinds or written < TEXTS[kind] or (read is _resistance and not decomposed):
            continue
        texts = OwnTexts.of(given, count=TEXTS[kind], progress=journal.progress)
        seconds = passes * texts.tokens * pace.seconds_per_token
        if seconds > most or journal.stopwatch.seconds + seconds > until:
            continue  # whoever needs it reads them in a turn
        try:
            read(given, texts, sites, journal.progress)
        except StropError as error:  # it is told again to whoever asks in a turn, and ends that turn alone
            journal.say(f"before the race: {reason_in(error)}")
    return Prepared(written, decomposed, journal.stopwatch.seconds)


def _decompose(given: Assignment, sites: Sequence[WeightSite], journal: Journal, *, until: float) -> bool:
    """Decompose matrices as far as the time reaches; return whether all are."""
    journal.progress.start("decomposing all matrices", len(sites))
    for site in sites:
        if journal.stopwatch.seconds >= until:
            return False
        given.decompose(given.anatomy.read_weight(given.model, site))
        journal.progress.advance()
    return True


def _resistance(given: Assignment, texts: OwnTexts, sites: Sequence[WeightSite], progress: Progress) -> None:
    """Ask the base's own text what it resists, which the cache keeps."""
    held = HeldDecompositions(given.model, given.anatomy, sites, decompose=given.decompose)
    fisher_information(given, texts, sites, decompositions=held, progress=progress)


def _said_by_base(given: Assignment, texts: OwnTexts, sites: Sequence[WeightSite], progress: Progress) -> None:
    """Ask the base what it says of its own text, which is kept while the model is."""
    plan = TrainPlan()
    read_as = read_by(given.model, texts.fingerprint, plan.precision)
    KeepToBase(given.model, given.anatomy, texts.texts, weight=plan.keep_base, per_pass=1, read_as=read_as)


READINGS: tuple[tuple[Texts, float, Callable[[Assignment, OwnTexts, Sequence[WeightSite], Progress], None]], ...] = (
    ("few", PASSES_OF_GRADIENT, _resistance),
    ("many", 1.0, _said_by_base),
)
"""What is read before the race: of which texts, in how many passes over them, and by what."""


def texts_of(contender: Contender) -> int:
    """Return how many texts of the base's own, beside those of drift, a contender reads."""
    return TEXTS[contender.texts]


def admitted(task: Task, plan: ImprovePlan) -> tuple[tuple[Contender, ...], dict[str, tuple[Contender, str]]]:
    """Return who is in the running for a task, in the order of the preset, and who is left out, with the reason.

    Args:
        task: to be improved at.
        plan: which families are asked for, and how much is tried.

    Raises:
        UsageError: nobody is in the running.
    """
    found, left_out = [], {}
    for name in plan.effort.contenders:
        own = CONTENDERS[name]
        asked = own.family in plan.families
        refusal = own.refusal(task) if asked else f"the family {own.family} was not asked for."
        if refusal is None:
            found.append(own)
        else:
            left_out[name] = own, refusal
    _refuse_nobody(task, plan, found, left_out)
    return tuple(found), left_out


def _refuse_nobody(
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
