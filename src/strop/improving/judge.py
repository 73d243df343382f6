"""Judge proposals side by side: all of a round on the same select examples, each paired with the model as it is."""

import dataclasses
import functools

from strop.improving.contenders import Contender, Share
from strop.improving.entry import Entry, Found
from strop.improving.keeping import Kept
from strop.improving.prompts import scorer_with
from strop.proving import Assignment, DriftText, Journal, TrialKey, free_rivals
from strop.scoring import ClassScorer, DriftScorer, Evaluation, Scorer, compare, scorer_of, writes
from strop.statistics import Comparison, Drift


class Judge:
    """Scores what contenders propose.

    Args:
        given: the model and the task.
        journal: of the run.
        kept: where entries are written down.
        drift_text: what drift from the base is measured on.
        seed: of intervals.
    """

    def __init__(self, given: Assignment, journal: Journal, kept: Kept, *, drift_text: DriftText, seed: int) -> None:
        self._given, self._journal, self._kept = given, journal, kept
        self._seed = seed
        self._reader = _reader_of(given, drift_text, journal)
        self._base: dict[int, Evaluation] = {}
        self.tokens = 0
        """Read by judging alone."""

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
        self, contender: Contender, number: int, share: Share, found: Found, *, seconds: float, carried: bool = False
    ) -> Entry:
        """Return a proposal as it is judged on the examples of a round.

        Args:
            contender: whose it is.
            number: of the round.
            share: of the contender in it.
            found: the proposal.
            seconds: that were spent on it.
            carried: it is of an earlier round.
        """
        key = self.key(contender, number, examples=share.select, carried=carried)
        known = self._kept.entry(contender, key, found)
        if known is not None:
            return known
        scorer = self._scorer(found.shots, share.select)
        said: list[Evaluation] = []
        with found.edits.applied(self._given.model, anatomy=self._given.anatomy, decompose=self._given.decompose):
            self._journal.progress.start(f"judging {contender.name}", scorer.steps)
            evaluated = functools.partial(self._said, scorer, said)
            trial = self._journal.measure(key, evaluated, begun=True)
            if not said:  # the trial is from a sitting that ended before it was written down
                self._said(scorer, said)
            drift = self._drift(found)
            guards = self._journal.guards.readings(key if found.edits else None)
        self.tokens += scorer.tokens
        base = self.base(share.select)
        evaluation = dataclasses.replace(said[0], tokens=base.tokens)  # an answer may be cut into other tokens
        entry = Entry(
            contender=contender,
            share=share,
            found=found,
            trial=trial,
            gain=compare(base, evaluation if found.changes else base, seed=self._seed),
            constant=self._over_constant(share.select, base, evaluation),
            drift=drift,
            guards=guards,
            tokens_per_request=scorer.tokens_per_request if isinstance(scorer, Scorer) else None,
            seconds=seconds,
        )
        self._kept.keep_entry(entry)
        return entry

    def base(self, examples: int) -> Evaluation:
        """Return what the model as it is says of a round's examples."""
        if examples not in self._base:
            scorer = self._scorer(None, examples)
            self._journal.progress.start("judging the model as it is", scorer.steps)
            self._base[examples] = scorer.evaluate(progress=self._journal.progress)
            self.tokens += scorer.tokens
        return self._base[examples]

    def _said(self, scorer: Scorer | ClassScorer, said: list[Evaluation]) -> Evaluation:
        said.append(scorer.evaluate(progress=self._journal.progress))
        return said[-1]

    def _scorer(self, shots: int | None, examples: int) -> Scorer | ClassScorer:
        given = self._given
        if shots is not None:
            return scorer_with(given, shots, examples)
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

    def _drift(self, found: Found) -> Drift | None:
        """Return the drift of the edits that are on the model; None without edits, or where the model writes no text."""
        if not found.edits or found.edits.holds_for_one_length or self._reader is None:
            return None
        return self._reader.read()


def _reader_of(given: Assignment, text: DriftText, journal: Journal) -> DriftScorer | None:
    """Let the base, which nothing is on, read what drift is measured on; None where it writes no text."""
    if not writes(given.model, given.anatomy):
        return None
    texts = text.texts(
        given.model,
        given.tokenizer,
        anatomy=given.anatomy,
        fingerprint=given.base.fingerprint,
        progress=journal.progress,
    )
    return DriftScorer(given.model, texts, anatomy=given.anatomy, source=text.name)
