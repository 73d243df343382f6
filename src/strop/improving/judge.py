"""Judge proposals side by side: all of a round on the same select examples, each paired with the model as it is."""

import dataclasses
from collections.abc import Callable, Sequence

from strop.improving.contenders import Contender, Share
from strop.improving.entry import Entry, Found
from strop.improving.keeping import Kept
from strop.improving.pace import DRIFT, EXAMPLES, GUARDS, Tempo, asked
from strop.improving.prompts import scorer_with
from strop.proving import Assignment, DriftFromBase, DriftText, Journal, Trial, TrialKey, free_rivals
from strop.runs import GuardReading
from strop.scoring import ClassScorer, DriftScorer, Evaluation, Scorer, compare, scorer_of, writes
from strop.statistics import Comparison, Drift


class Judge:
    """Scores what contenders propose.

    Args:
        given: the model and the task.
        journal: of the run.
        kept: where entries are written down.
        tempo: of the machine, which is told how long everything takes.
        drift_text: what drift from the base is measured on.
        seed: of intervals.
    """

    def __init__(
        self, given: Assignment, journal: Journal, kept: Kept, *, tempo: Tempo, drift_text: DriftText, seed: int
    ) -> None:
        self._given, self._journal, self._kept = given, journal, kept
        self._tempo, self._seed = tempo, seed
        self._measure = DriftFromBase(drift_text)
        self._reader = _reader_of(given, self._measure, journal)
        self._base: dict[int, Evaluation] = {}
        self.tokens = 0
        """Read by judging alone."""

    @property
    def reads_drift(self) -> bool:
        """Whether it reads the drift of what is proposed itself: no guard has read that of the edits as they are applied."""
        guarding = self._journal.guards.drift_scorer(self._measure)
        return self._reader is not None and (guarding is None or not guarding.reads_learning_as_applied)

    def key(self, contender: Contender, number: int, *, examples: int, carried: bool) -> TrialKey:
        """Return the key of a proposal's trial.

        Args:
            contender: whose it is.
            number: of the round it is judged in.
            examples: it is judged on.
            carried: it is of an earlier round.
        """
        return self._journal.key((contender.name, carried), round=number, examples=examples)

    def entry(
        self,
        contender: Contender,
        number: int,
        share: Share,
        found: Found,
        *,
        seconds: float,
        earlier: Entry | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Entry:
        """Return a proposal as it is judged on the examples of a round; what it costs elsewhere is read once.

        Args:
            contender: whose it is.
            number: of the round.
            share: of the contender in it.
            found: the proposal.
            seconds: that were spent on it.
            earlier: how it was judged in an earlier round, where it is of one.
            check: raises where it is too late to judge what has not been.
        """
        key = self.key(contender, number, examples=share.select, carried=earlier is not None)
        known = self._kept.entry(contender, key, found)
        if known is not None:
            return known
        if found.changes:
            check()
        base = self.base(share.select)
        scorer = self._scorer(found.shots, share.select, edited=bool(found.edits))
        evaluation = base
        if found.changes:
            with found.edits.applied(self._given.model, anatomy=self._given.anatomy, decompose=self._given.decompose):
                self._journal.progress.start(f"judging {contender.name}", scorer.steps)
                said = self._read(scorer, kind_of(found, contender.name))
                drift, guards = self._cost(found, key) if earlier is None else self._same_cost(earlier, key)
            self.tokens += scorer.tokens
            evaluation = dataclasses.replace(said, tokens=base.tokens)  # an answer may be cut into other tokens
        else:
            drift, guards = None, self._journal.guards.readings(None)
        entry = Entry(
            contender=contender,
            share=share,
            found=found,
            trial=self._journal.measure(key, lambda: evaluation, begun=True),
            gain=compare(base, evaluation, seed=self._seed),
            constant=self._over_constant(share.select, base, evaluation),
            drift=drift,
            guards=guards,
            tokens_per_request=scorer.tokens_per_request if isinstance(scorer, Scorer) else None,
            seconds=seconds,
        )
        self._kept.keep_entry(entry)
        return entry

    def unedited(self, examples: int) -> Trial:
        """Return the trial of the model as it is on a round's examples, which all contenders find in the study."""
        key = self._journal.unedited_key(examples=examples)
        return self._journal.find(key) or self._journal.measure(key, lambda: self.base(examples))

    def base(self, examples: int) -> Evaluation:
        """Return what the model as it is says of a round's examples."""
        if examples not in self._base:
            scorer = self._scorer(None, examples)
            self._journal.progress.start("judging the model as it is", scorer.steps)
            self._base[examples] = self._read(scorer, EXAMPLES)
            self.tokens += scorer.tokens
        return self._base[examples]

    def _read(self, scorer: Scorer | ClassScorer, kind: str) -> Evaluation:
        """Return what the model as it stands says of some examples, and note how long it took."""
        began = self._journal.stopwatch.seconds
        said = scorer.evaluate(progress=self._journal.progress)
        self._tempo.note(kind, scorer.example_count, self._journal.stopwatch.seconds - began)
        return said

    def _scorer(self, shots: int | None, examples: int, *, edited: bool = False) -> Scorer | ClassScorer:
        given = self._given
        if shots is not None:
            return scorer_with(given, shots, examples, edited=edited)
        return scorer_of(
            given.model,
            given.tokenizer,
            given.task,
            given.task.examples("select", limit=examples),
            anatomy=given.anatomy,
        )

    def _over_constant(self, examples: int, base: Evaluation, evaluation: Evaluation) -> Comparison | None:
        """Return the gain over the best constant answer; None where no answer is right or wrong."""
        task = self._given.task
        rivals = free_rivals(
            task,
            task.examples("select", limit=examples),
            base,
            evaluation,
            tokenizer=self._given.tokenizer,
            seed=self._seed,
        )
        constant = rivals.measured.get("constant")
        return constant.comparison if constant is not None else None

    def _same_cost(self, earlier: Entry, key: TrialKey) -> tuple[Drift | None, tuple[GuardReading, ...]]:
        """Return what was read of a proposal in an earlier round, which is known of it from now on in this one too."""
        guards = self._journal.guards
        guards.take_over(key, earlier.trial.key)
        if earlier.drift is not None:
            guards.take_drift(self._measure, key, earlier.drift)
        return earlier.drift, earlier.guards

    def _cost(self, found: Found, key: TrialKey) -> tuple[Drift | None, tuple[GuardReading, ...]]:
        """Return the drift of a proposal that is on the model, where it has one, and what the guards say of it."""
        guards = self._journal.guards
        if not found.edits:
            return None, guards.readings(None)
        drift = found.drift
        if drift is None and self._reader is not None and not found.edits.holds_for_one_length:
            began = self._journal.stopwatch.seconds
            drift = self._reader.read()
            self._tempo.note(DRIFT, 1, self._journal.stopwatch.seconds - began)
        if drift is not None:
            guards.take_drift(self._measure, key, drift)
        known = guards.has_read(key)  # by an earlier sitting, or just now: that takes no time
        began = self._journal.stopwatch.seconds
        readings = guards.readings(key)
        if not known:
            self._tempo.note(GUARDS, 1, self._journal.stopwatch.seconds - began)
        return drift, readings


def kind_of(found: Found, name: str) -> str:
    """Return the kind of work that it is to read an example with a proposal on the model.

    Args:
        found: the proposal.
        name: of the contender.
    """
    if found.edits:
        as_fast = found.shots is None and found.edits.head is None
        return EXAMPLES if as_fast and all(own.kind == "weight" for own in found.edits.interventions) else name
    return asked(found.shots) if found.shots is not None else EXAMPLES


def kinds_of(entries: Sequence[Entry | None]) -> tuple[str, ...]:
    """Return the kind of work that it is to read an example with each of some entries' proposals on the model.

    Args:
        entries: None is of nobody.
    """
    return tuple(kind_of(own.found, own.name) for own in entries if own is not None)


def _reader_of(given: Assignment, measure: DriftFromBase, journal: Journal) -> DriftScorer | None:
    """Return what has read of the base what drift is measured on, for a guard or now; None where the model writes no text."""
    if not writes(given.model, given.anatomy):
        return None
    guarding = journal.guards.drift_scorer(measure)
    if guarding is not None:
        return guarding
    texts = measure.text.texts(
        given.model,
        given.tokenizer,
        anatomy=given.anatomy,
        fingerprint=given.base.fingerprint,
        progress=journal.progress,
    )
    return DriftScorer(given.model, texts, anatomy=given.anatomy, source=measure.text.name)
