"""What a whole run found."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from strop.files import making_folder, write_json
from strop.proving.trials import Trial
from strop.recipe import Recipe
from strop.runs import Leaderboard, RunResult
from strop.scoring import Evaluation
from strop.statistics import spell_p_value
from strop.tables import data_frame, to_html


@dataclasses.dataclass(frozen=True)
class RunOutcome:
    """What a search, a pruning, a sharpening or a training found."""

    recipe: Recipe
    result: RunResult
    """The figures, as result.json holds them."""
    trials: tuple[Trial, ...]
    """Everything that was tried, in the order of the queue."""
    folder: Path | None = None
    """The run folder, where there is one."""
    test_evaluations: tuple[Evaluation, Evaluation] | None = None
    """Example by example, of the base and of the chosen recipe; None where a finished run was only read back."""
    leaderboard: Leaderboard | None = None
    """All that was in the running, where that was more than one method."""

    def fixed_indices(self) -> list[int]:
        """Return which test examples were wrong before and are right after."""
        if self.test_evaluations is None:
            return []
        before, after = self.test_evaluations
        if before.correct is None or after.correct is None:
            return []
        return [int(index) for index in np.flatnonzero(after.correct & ~before.correct)]

    def save(self, folder: str | Path) -> Path:
        """Write the recipe and the figures as a folder that appears whole or not at all, as a run folder holds them.

        Args:
            folder: must not hold anything yet.

        Raises:
            UsageError: the folder is there already and is not empty.
        """
        with making_folder(Path(folder)) as temporary:
            (temporary / "recipe").mkdir()
            self.recipe.write_files(temporary / "recipe")
            write_json(temporary / "result.json", self.result.to_json())
        return Path(folder)

    def to_pandas(self) -> Any:
        """Return everything that was tried as a `pandas.DataFrame`, a trial a row.

        Raises:
            UsageError: pandas is not installed.
        """
        composed = any(trial.key.below for trial in self.trials)
        return data_frame(
            [
                {
                    **{name: getattr(trial.key, name) for name in ("method", "stage", "round", "split", "examples")},
                    **trial.key.candidate,
                    **({"below": trial.key.below} if composed else {}),
                    **trial.scores(),
                }
                for trial in self.trials
            ]
        )

    def _repr_html_(self) -> str:
        from strop.report import run_parts

        return to_html(*run_parts(self.result))

    def __str__(self) -> str:
        base, edited = self.result.base["test"], self.result.edited["test"]
        comparison = self.result.comparison["test"]
        if base.metric is not None and edited.metric is not None:
            measured, before, after, unit = base.metric[0], base.metric[1], edited.metric[1], ""
        elif base.accuracy is not None and edited.accuracy is not None:
            measured, before, after, unit = "accuracy", base.accuracy, edited.accuracy, ""
        else:
            measured, before, after, unit = "loss", base.loss, edited.loss, " nats per token"
        low, high = comparison.ci95
        spread = f"\n{self.result.categories.sentence}" if self.result.categories is not None else ""
        price, rivals = self.result.price, self.result.rivals
        drift = f"\n{price.drift}; it {price.drift.verdict}" if price is not None and price.drift is not None else ""
        as_good = (
            f"\nnot surely better than: {', '.join(rivals.as_good)}" if rivals is not None and rivals.as_good else ""
        )
        return (
            f"{self.recipe}\n"
            f"{measured} on {base.count} held-out examples: {before:.4f} -> {after:.4f}{unit} "
            f"(gain {comparison.gain:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}, "
            f"{spell_p_value(comparison.p_value)}){spread}{drift}{as_good}"
        )
