"""A worker of a search that somebody else decides: it scores candidates on the model as the search has it just then."""

from collections.abc import Sequence
from typing import Any

from strop.interventions import applied_interventions, intervention_from_json
from strop.progress import Progress
from strop.proving import Assignment, Batch, Budget, Guards, Journal, Study, TrialKey, Turns, batch_of
from strop.runs import Stopwatch
from strop.searching.laser.chooser import ReductionChooser
from strop.searching.laser.plan import SearchPlan
from strop.searching.laser.together import layer_of, score_in_turn


class Helper:
    """Takes part in the batches of a search.

    Args:
        given: what the search is about, with the select split alone.
        plan: the search's settings.
        study: the search's queue.
        progress: told what is done.

    Raises:
        TaskError: a row does not fit the model.
        SiteError: the model has no such layer or matrix type.
    """

    def __init__(self, given: Assignment, plan: SearchPlan, study: Study, *, progress: Progress) -> None:
        self._given, self._study, self._progress = given, study, progress
        self._chooser = ReductionChooser(given, plan)
        self.scored = 0
        """Candidates so far."""

    def take_part(self, batch: Batch, keys: Sequence[TrialKey]) -> None:
        """Score candidates of a batch as long as some wait.

        Args:
            batch: what may be done now.
            keys: of its trials that are not finished.
        """
        given, space = self._given, self._chooser.space
        how: dict[str, Any] = {"anatomy": given.anatomy, "decompose": given.decompose}
        on_model = [intervention_from_json(entry) for entry in batch.edits]
        journal = self._journal(batch, keys[0])
        self._progress.start("scoring what waits", len(keys))
        turns = Turns(
            self._study,
            keys,
            portion=layer_of,
            finish=journal.finish,
            over=lambda: batch_of(self._study) != batch,
            decides=False,
            done=self._count,
        )
        with given.start.applied(given.model, **how), applied_interventions(given.model, on_model, **how), turns:
            candidates = {key: found for key in keys if (found := space.candidate(key)) is not None}
            score_in_turn(turns, candidates, self._chooser.select.of_size(keys[0].examples), decompose=given.decompose)

    def _journal(self, batch: Batch, key: TrialKey) -> Journal:
        return Journal(
            study=self._study,
            space=self._chooser.space,
            stage=key.stage,
            progress=self._progress,
            stopwatch=Stopwatch(batch.seconds),
            budget=Budget(),
            guards=Guards((), study=self._study),
            objective=self._chooser.plan.objective,
        )

    def _count(self, scored: int) -> None:
        self.scored += scored
        self._progress.advance(scored)
