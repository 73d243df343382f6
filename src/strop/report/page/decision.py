"""The decision of a run in three sentences, and the figures it rests on."""

from typing import Literal

from strop.report.figures import percent
from strop.report.page.document import Headline
from strop.report.page.run_files import RunFiles
from strop.report.rivals import rival_lines
from strop.report.run import gain_spelling, interval_text
from strop.runs import RunResult

Mood = Literal["good", "neutral", "bad"]


def verdict_of(run: RunFiles) -> tuple[str, Mood]:
    """Return the decision in a few words, and how it is to be taken.

    Args:
        run: finished or not.
    """
    result = run.result
    if result is None:
        return "Not finished", "neutral"
    low, high = result.comparison["test"].ci95
    if not result.interventions and not _chosen_elsewhere(run):
        return "Keep the model as it is", "neutral"
    if any(not guard.holds for guard in result.guards):
        return "A guard is broken", "bad"
    if low > 0:
        return "Better, beyond chance", "good"
    return ("Worse than before", "bad") if high < 0 else ("No gain is shown", "neutral")


def _chosen_elsewhere(run: RunFiles) -> bool:
    """Return whether something without interventions was chosen, such as a prompt."""
    return run.leaderboard is not None and run.leaderboard.chosen.family not in ("none", "")


def decision_sentences(run: RunFiles) -> tuple[str, ...]:
    """Return the decision and why, in three sentences at most.

    Args:
        run: finished or not.
    """
    if run.leaderboard is not None and run.leaderboard.decision:
        return (run.leaderboard.decision,)
    result = run.result
    if result is None:
        tried = len(run.trials)
        return (
            "The run was interrupted or is still going on, so nothing is decided yet.",
            f"{tried} trial{'s are' if tried != 1 else ' is'} kept, and nothing was measured on held-out examples.",
        )
    return tuple(line for line in (_gain(result), _price(result), _but(result)) if line)


def _gain(result: RunResult) -> str:
    found, figures = result.comparison["test"], headline_of(result)
    if not result.interventions:
        return (
            f"No edit helped on the examples that choose, so the model stays as it is, at {figures.before} "
            f"{figures.measure} on {figures.count:,} held-out examples."
        )
    spell, unit = gain_spelling(in_accuracy=result.base["test"].accuracy is not None, metric=result.metric)
    what = f"{figures.measure} on {result.task.name} goes from {figures.before} to {figures.after}"
    interval = f"{figures.gain} {unit}, 95 % interval {interval_text(found, spell)}"
    surely = found.ci95[0] > 0
    end = "which chance does not explain" if surely else "which chance may explain" if found.ci95[1] >= 0 else "a loss"
    return f"Held out, {what} ({interval}), {end}."


def _price(result: RunResult) -> str:
    broken = [guard.name for guard in result.guards if not guard.holds]
    if broken:
        return f"The guard{'s' if len(broken) > 1 else ''} on {', '.join(broken)} {'are' if len(broken) > 1 else 'is'} broken."
    price = result.price
    if price is None or not result.interventions:
        return ""
    if price.drift is None:
        return f"What it costs in other uses is not known: {price.reason.rstrip('.')}."
    held = ", and every guard holds" if result.guards else ""
    return f"It {price.drift.verdict} (drift {price.drift.spelt_kl} nats per token){held}."


def _but(result: RunResult) -> str:
    """Return what speaks against it most: a rival that does as well, or else where the gain is."""
    verdicts = rival_lines(result.rivals, figures=False) if result.interventions else []
    for words in (" better (", " as well ("):
        found = next((line for line in verdicts if words in line), None)
        if found is not None:
            return found
    return result.categories.sentence if result.categories is not None and result.interventions else ""


def headline_of(result: RunResult) -> Headline:
    """Return the figures that a chapter opens with.

    Args:
        result: of a finished run.
    """
    base, edited, found = result.base["test"], result.edited["test"], result.comparison["test"]
    spell, unit = gain_spelling(in_accuracy=base.accuracy is not None, metric=result.metric)
    if base.metric is not None and edited.metric is not None and result.metric not in (None, "accuracy"):
        measure, before, after = str(result.metric), f"{base.metric[1]:.4f}", f"{edited.metric[1]:.4f}"
    elif base.accuracy is not None:
        measure, before, after = "accuracy", percent(base.accuracy), percent(edited.accuracy)
    else:
        measure, before, after = "loss", f"{base.loss:.3f}", f"{edited.loss:.3f}"
    return Headline(measure, before, after, spell(found.gain), interval_text(found, spell), unit, base.count)
