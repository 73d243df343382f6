"""Choose edits, one after the other, while the select split says they help."""

from collections.abc import Sequence

from strop.anatomy import MatrixType, WeightSite
from strop.interventions import RankReduction, WeightIntervention, applied_interventions
from strop.interventions.base import Decompose
from strop.progress import Progress
from strop.runs import RunFolder, Stopwatch, Trial, TrialBook
from strop.searching.candidates import all_candidates, best_of, predicted_candidates
from strop.searching.gradient import measure_effects
from strop.searching.plan import LASER_RANK_FRACTIONS, SearchPlan
from strop.searching.sweep import sweep
from strop.tasks import Evaluation, Scorer


class Chooser:
    """Adds one edit after the other while the select split says it helps.

    Args:
        scorer: all select examples the choice is made by.
        screen: the sample of them that candidates are screened on.
        guide: the same sample, as the gradient is taken over it.
        plan: the settings.
        shapes: of the matrices to consider, by site.
        book: where finished trials are kept.
        decompose: how to come by decompositions.
        run: the folder whose log is written, where there is one.
        progress: told how far it is.
    """

    def __init__(
        self,
        scorer: Scorer,
        screen: Scorer,
        guide: Scorer,
        plan: SearchPlan,
        shapes: dict[WeightSite, tuple[int, int]],
        book: TrialBook,
        decompose: Decompose,
        run: RunFolder | None,
        progress: Progress,
    ) -> None:
        self.scorer, self.screen, self.guide, self.plan = scorer, screen, guide, plan
        self.shapes, self.book, self.decompose, self.run, self.progress = shapes, book, decompose, run, progress
        self.stopwatch = Stopwatch(max((trial.elapsed_seconds for trial in book.trials), default=0.0))

    def choose(self) -> tuple[list[RankReduction], Trial, Trial]:
        """Return the chosen edits, the trial of no edit, and the trial of the last edit that was taken."""
        unedited = best = self._unedited()
        chosen: list[RankReduction] = []
        for number in range(1, self.plan.max_edits + 1):
            free = {site: shape for site, shape in self.shapes.items() if site not in {e.site for e in chosen}}
            if not free:
                break
            with applied_interventions(
                self.scorer.model, chosen, anatomy=self.scorer.anatomy, decompose=self.decompose
            ):
                winner = max(self._try_all(number, free), key=lambda trial: trial.merit)
            if winner.merit <= best.merit or winner.intervention is None:
                self._say(f"edit {number}: nothing tried beats what there is; stopping")
                break
            chosen.append(winner.intervention)
            best = winner
            self._say(f"edit {number}: {winner.intervention} (rank {winner.rank}): {_in_words(winner)}")
        return chosen, unedited, best

    @property
    def tokens(self) -> int:
        """Tokens of all trials and of the gradient's samples, as if each had run the whole model."""
        rounds = {trial.round for trial in self.book.trials if trial.intervention is not None}
        of_trials = sum(
            (self.scorer if trial.examples == self.scorer.example_count else self.screen).tokens
            for trial in self.book.trials
        )
        return of_trials + (len(rounds) * self.guide.tokens if self.plan.strategy == "gradient" else 0)

    def _unedited(self) -> Trial:
        known = self.book.find(1, None, 0, self.scorer.example_count)
        if known is None:
            self.progress.start("scoring the model as it is", len(self.scorer.batches))
            known = self._record(1, None, self.scorer.evaluate(progress=self.progress))
        self._say(f"no edit: {_in_words(known)}")
        return known

    def _try_all(self, number: int, shapes: dict[WeightSite, tuple[int, int]]) -> list[Trial]:
        if self.plan.strategy == "exhaustive":
            everything = all_candidates(shapes, self.plan.rank_fractions or LASER_RANK_FRACTIONS)
            return self._try(number, everything, self.scorer, "trying")
        proposed = self._propose(number, shapes)
        if len(proposed) > self.plan.finalists and 2 * self.screen.example_count <= self.scorer.example_count:
            proposed = best_of(self._try(number, proposed, self.screen, "screening"), self.plan.finalists)
        return self._try(number, proposed, self.scorer, "trying")

    def _propose(self, number: int, shapes: dict[WeightSite, tuple[int, int]]) -> list[RankReduction]:
        key = f"candidates of edit {number}"
        kept = self.book.recall(key)
        if kept is not None:
            return [RankReduction(WeightSite(layer, MatrixType(name)), share) for layer, name, share in kept]
        lowest = min(site.layer for site in shapes)
        self.progress.start(f"edit {number}: asking the gradient", 2 * (self.guide.anatomy.layer_count - lowest))
        effects = measure_effects(self.guide, list(shapes), decompose=self.decompose, progress=self.progress)
        proposed = predicted_candidates(
            effects, shapes, top_matrices=self.plan.top_matrices, rank_fractions=self.plan.rank_fractions
        )
        self.book.remember(key, [[c.site.layer, str(c.site.matrix_type), c.rank_fraction] for c in proposed])
        return proposed

    def _try(self, number: int, candidates: Sequence[RankReduction], scorer: Scorer, verb: str) -> list[Trial]:
        known = [self.book.find(number, c, c.rank(self.shapes[c.site]), scorer.example_count) for c in candidates]
        waiting = [c for c, trial in zip(candidates, known, strict=True) if trial is None]
        finished = {trial.key: trial for trial in known if trial is not None}

        def report(candidate: WeightIntervention, evaluation: Evaluation) -> None:
            assert isinstance(candidate, RankReduction)
            trial = self._record(number, candidate, evaluation)
            finished[trial.key] = trial

        if waiting:
            self.progress.start(f"edit {number}: {verb} {len(waiting)} candidates", len(waiting))
            sweep(scorer, waiting, decompose=self.decompose, report=report, progress=self.progress)
        return sorted(finished.values(), key=lambda trial: trial.key[1:])  # the same order after a resume

    def _record(self, number: int, candidate: RankReduction | None, evaluation: Evaluation) -> Trial:
        trial = Trial(
            round=number,
            intervention=candidate,
            rank=candidate.rank(self.shapes[candidate.site]) if candidate else 0,
            examples=evaluation.count,
            accuracy=evaluation.accuracy,
            loss=evaluation.mean_loss,
            elapsed_seconds=self.stopwatch.seconds,
        )
        self.book.add(trial)
        return trial

    def _say(self, line: str) -> None:
        self.progress.note(line)
        if self.run is not None:
            self.run.log(line)


def _in_words(trial: Trial) -> str:
    accuracy = "" if trial.accuracy is None else f"accuracy {trial.accuracy:.4f}, "
    return f"{accuracy}loss {trial.loss:.4f} on select"
