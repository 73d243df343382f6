"""The table an evaluation ends with."""

from collections.abc import Callable, Mapping
from typing import Any

from strop.report.figures import percent, shots_phrase
from strop.statistics import Figures
from strop.tables import Table


def evaluation_table(report: Mapping[str, Any]) -> Table:
    """Return the table of one model's figures, or of two: as it was and edited.

    Args:
        report: what `strop eval --json` prints.
    """
    shown = {name: report[name] for name in ("base", "edited") if name in report}
    first = shown["base"]
    extra = further_figures(first)
    rows = tuple(
        (
            name,
            str(figures["count"]),
            percent(figures["accuracy"]),
            f"{figures['loss']:.3f}",
            *(spell(figures[key]) for key, spell in extra.values()),
        )
        for name, figures in shown.items()
    )
    task = report["task"]
    title = asked_title(report["base_model"]["id"], task["name"], task["split"], task.get("shots", 0))
    return Table(title, ("model", "count", "accuracy", "loss", *extra), rows)


def figures_table(figures: Figures, *, title: str) -> Table:
    """Return the table of one model's figures, one in each row.

    Args:
        figures: of an evaluation.
        title: of the table.
    """
    own = figures.to_json()
    accuracy = [("accuracy", percent(figures.accuracy))] if figures.accuracy is not None else []
    further = [(name, spell(own[key])) for name, (key, spell) in further_figures(own).items()]
    rows = [("examples", str(figures.count)), *accuracy, ("loss", f"{figures.loss:.3f}"), *further]
    return Table(title, ("", "figure"), tuple(rows))


def asked_title(model: str, task: str, split: str, shots: int) -> str:
    """Return the title of a table of what was asked of whom.

    >>> asked_title("smollm2-135m", "world-facts", "test", 1)
    'smollm2-135m on world-facts/test, 1 example in each prompt'
    """
    return f"{model} on {task}/{split}{shots_phrase(shots)}"


def further_figures(figures: Mapping[str, Any]) -> dict[str, tuple[str, Callable[[float], str]]]:
    """Return what to show of an evaluation beside accuracy and loss: a figure's name for people → its key, how it is spelt.

    Args:
        figures: as a result file holds them.
    """
    optional: dict[str, tuple[str, Callable[[float], str]]] = {
        "macro": ("macro", percent),
        "top 5": ("top5", percent),
        "top 10": ("top10", percent),
        "perplexity": ("perplexity", lambda value: f"{value:.3f}"),
    }
    metric = figures.get("metric", "accuracy")
    if metric != "accuracy":
        optional[metric] = (metric, lambda value: f"{value:.4f}")
    return {name: how for name, how in optional.items() if how[0] in figures}


def paraphrase_lines(report: Mapping[str, Any]) -> list[str]:
    """Return a line for each model on how its answers hold in other words.

    Args:
        report: what `strop eval --json --paraphrases` prints.
    """
    return [
        f"In other words, {name}: {percent(asked['accuracy'])} of {asked['count']} paraphrases right; "
        f"{percent(asked['consistent'])} of the examples right in every wording"
        for name, asked in report.get("paraphrases", {}).items()
    ]
