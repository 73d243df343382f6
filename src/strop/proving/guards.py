"""Bounds on what a choice may harm, looked at only when a candidate would otherwise win."""

import dataclasses
import difflib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from strop.errors import NotFiniteError, UsageError
from strop.proving.drift import DriftFromBase, DriftReader, DriftText
from strop.proving.measures import Base, Measure, Reader, TaskAccuracy, TextPerplexity
from strop.proving.study import Study
from strop.proving.trials import TrialKey
from strop.runs import GuardReading
from strop.scoring import DriftScorer
from strop.statistics import Drift
from strop.tasks import builtin_tasks, load_task


@dataclasses.dataclass(frozen=True, eq=False)
class Guard:
    """A measure and the most harm a choice may do to it.

    Args:
        measure: of what.
        bound: in the measure's `bound_unit`: 0.02 is two per cent of the base's figure, or two points.

    Raises:
        UsageError: a bound that is negative or not finite.
    """

    measure: Measure
    bound: float

    def __post_init__(self) -> None:
        if not 0 <= self.bound < math.inf:
            raise UsageError(f"The guard on {self.measure.name} has a bound of 0 or more, not {self.bound:g}.")

    @classmethod
    def parse(cls, text: str, *, drift_text: DriftText | None = None) -> "Guard":
        """Return the guard a text such as `drift:0.05`, `notes.txt:2%` or `boolq:1` names.

        `drift:0.05` bounds KL(base ‖ edited) in nats per token, on text the base writes itself; `FILE:2%` the growth of the
        perplexity of a text file; `TASK:1` what is lost of the accuracy on another task, in percentage points.

        Args:
            text: what is guarded, a colon, and the bound.
            drift_text: what drift is measured on; text the base writes itself by default.

        Raises:
            UsageError: the text is not of that form, or there is no such file.
            TaskError: there is no such task.
        """
        subject, colon, amount = text.rpartition(":")
        per_cent = amount.strip().endswith("%")
        try:
            bound = float(amount.strip().removesuffix("%")) / 100
        except ValueError:
            colon = ""
        if not colon or not subject.strip():
            raise UsageError(
                f"'{text}' is no guard: write drift:0.05 for nats per token away from the base, FILE.txt:2% for a text's "
                "perplexity, or TASK:1 for points of accuracy on another task."
            )
        if subject == "drift":
            if per_cent:
                raise UsageError(f"'{text}': drift is bounded in nats per token, such as drift:0.05.")
            return cls(DriftFromBase(drift_text or DriftText()), float(amount))
        path = Path(subject).expanduser()
        if per_cent and (subject in builtin_tasks() or path.suffix in (".yaml", ".yml")):
            points = amount.strip().removesuffix("%")
            raise UsageError(f"'{text}': {subject} is a task, whose bound is written in points ({subject}:{points}).")
        if per_cent:
            return cls(TextPerplexity.read(path), bound)
        if path.suffix == "" and subject not in builtin_tasks() and difflib.get_close_matches(subject, ["drift"]):
            raise UsageError(f"'{text}' guards nothing: did you mean drift:{amount}?")
        if path.suffix not in (".yaml", ".yml") and subject not in builtin_tasks() and path.is_file():
            raise UsageError(
                f"'{text}': {subject} is a text file, whose bound is written with a per cent sign ({amount}%)."
            )
        return cls(TaskAccuracy(load_task(subject)), bound)

    @property
    def fingerprint(self) -> str:
        """What tells it from another guard."""
        return f"{self.measure.fingerprint} {self.bound:g}"

    def read(self, base: float, edited: float) -> GuardReading:
        """Return what it says of two figures."""
        measure = self.measure
        return GuardReading(
            measure.name, measure.unit, base, edited, measure.harm(base, edited), self.bound, measure.bound_unit
        )


Ready = Sequence[tuple[Guard, Reader]]
"""Guards, each with what reads its measure of one model."""


def ready_guards(guards: Sequence[Guard], base: Base) -> Ready:
    """Return guards made ready for a model.

    Args:
        guards: in the order they are looked at.
        base: the model as it is before any edit.

    Raises:
        UsageError: something cannot be measured of this model.
        TaskError: a row of a guard's task does not fit the model.
    """
    return [(guard, guard.measure.reader(base)) for guard in guards]


class Guards:
    """All guards of a run; figures are kept in the study, so that a resumed run repeats none.

    Args:
        ready: for the run's model, in the order they are looked at; the first that does not hold ends the look.
        study: where figures are kept.
    """

    def __init__(self, ready: Ready, *, study: Study) -> None:
        self._ready = tuple(ready)
        self._study = study

    def __bool__(self) -> bool:
        return bool(self._ready)

    def read_base(self) -> None:
        """Measure the model as it is before any edit."""
        for guard, reader in self._ready:
            self._figure(guard, reader, "base")

    def has_read(self, key: TrialKey) -> bool:
        """Return whether what the guards say of a candidate is known, so that asking costs nothing.

        Args:
            key: of the candidate.
        """
        for guard, reader in self._ready:
            edited = self._study.recall(_name_of(guard.measure.fingerprint, key.text))
            if edited is None:
                return False
            if not guard.read(self._figure(guard, reader, "base"), float(edited)).holds:
                return True  # those behind it are not asked
        return True

    def broken_by(self, key: TrialKey) -> GuardReading | None:
        """Return the first guard that speaks against a candidate; those behind it are not read.

        Args:
            key: of the candidate, which is on the model.
        """
        return next((reading for reading in self._readings(key) if not reading.holds), None)

    def readings(self, key: TrialKey | None) -> tuple[GuardReading, ...]:
        """Return what all guards say of the model as it stands.

        Args:
            key: of the candidate that is on the model; None for the model before any edit.
        """
        return tuple(self._readings(key))

    def drift_scorer(self, measure: DriftFromBase) -> DriftScorer | None:
        """Return what has read the base's side of drift, where that is guarded; None where it is not.

        Args:
            measure: what it is measured on.
        """
        of_it = (reader for guard, reader in self._ready if guard.measure.fingerprint == measure.fingerprint)
        return next((reader.scorer for reader in of_it if isinstance(reader, DriftReader)), None)

    def drift_of(self, measure: DriftFromBase, key: TrialKey) -> Drift | None:
        """Return how far a candidate is from the base, where that was read; None where it was not.

        Args:
            measure: what it is measured on.
            key: of the candidate.
        """
        known = self._study.recall(_in_full(measure.fingerprint, key.text))
        return Drift.from_json(known) if known is not None else None

    def take_drift(self, measure: DriftFromBase, key: TrialKey, drift: Drift) -> None:
        """Take how far a candidate is from the base from whoever has read that already.

        Args:
            measure: what it is measured on.
            key: of the candidate.
            drift: what was read.
        """
        self._study.remember(_in_full(measure.fingerprint, key.text), drift.to_json())
        self._study.remember(_name_of(measure.fingerprint, key.text), drift.kl)

    def take_over(self, key: TrialKey, other: TrialKey) -> None:
        """Take what was read of a candidate for what is read of it under another key.

        Args:
            key: to be known by.
            other: it was read under.
        """
        for guard, _ in self._ready:
            known = self._study.recall(_name_of(guard.measure.fingerprint, other.text))
            if known is not None:
                self._study.remember(_name_of(guard.measure.fingerprint, key.text), known)

    def _readings(self, key: TrialKey | None) -> Iterator[GuardReading]:
        for guard, reader in self._ready:
            base = self._figure(guard, reader, "base")
            yield guard.read(base, base if key is None else self._figure(guard, reader, key.text))

    def _figure(self, guard: Guard, reader: Reader, of: str) -> float:
        name = _name_of(guard.measure.fingerprint, of)
        known = getattr(guard.measure, "base_figure", None) if of == "base" else None
        if known is not None:
            return float(known)
        known = self._study.recall(name)
        if known is None:
            known = _figure_of(reader, of)
            if (
                isinstance(reader, DriftReader)
                and reader.newest is not None
                and reader.scorer.reads_learning_as_applied
            ):
                self._study.remember(_in_full(guard.measure.fingerprint, of), reader.newest.to_json())
            self._study.remember(name, known)
        return float(known)


def _name_of(fingerprint: str, of: str) -> str:
    """Return what a figure of a measure is kept by."""
    return f"guard {fingerprint} of {of}"


def _in_full(fingerprint: str, of: str) -> str:
    """Return what all that was read with a figure is kept by."""
    return f"{_name_of(fingerprint, of)} in full"


def _figure_of(reader: Reader, of: str) -> float:
    """Return what is read; of an edited model whose probabilities are not finite NaN, for which no guard holds."""
    try:
        return reader()
    except NotFiniteError:
        if of == "base":
            raise
        return math.nan
