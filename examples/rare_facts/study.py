"""Three methods on one model of the world: what each gains, and on facts of which frequency."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerFast

import strop
from examples.rare_facts.models import MIXTRAL
from strop.proving import DriftText
from strop.runs import RunResult
from strop.statistics import Comparison, spell_p_value
from strop.statistics.intervals import interval_to_json
from strop.tables import Table

ATTENTION = (
    strop.MatrixType.QUERY,
    strop.MatrixType.KEY,
    strop.MatrixType.VALUE,
    strop.MatrixType.OUTPUT,
)
RANK_FRACTIONS = (0.6, 0.4, 0.2, 0.1, 0.05, 0.01)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Effort:
    """How much each method may try."""

    rank_fractions: tuple[float, ...] = RANK_FRACTIONS
    rounds: int = 4
    """Of pruning."""
    epochs: int = 20
    """Of training."""


def prove_methods(
    shape: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    task: strop.Task,
    effort: Effort,
    *,
    text: str,
    out: Path,
) -> dict[str, RunResult]:
    """Return what LASER, eigenpruning and LoReFT each found, proved on the test split.

    Args:
        shape: of the model; the experts of a Mixtral are reduced each on its own, and left out of pruning, for what goes in
            and out of one of them is not to be seen.
        model: with nothing attached.
        tokenizer: its own.
        task: the facts.
        effort: of each method.
        text: of the world, on which drift is measured.
        out: folder for the runs.
    """
    family = MIXTRAL if shape == "mixtral" else None
    search = strop.SearchPlan(strategy="exhaustive", rank_fractions=effort.rank_fractions)
    prune = strop.PrunePlan(matrix_types=ATTENTION if family is not None else None, iterate=effort.rounds)
    train = strop.TrainPlan(
        method="loreft",
        rank=4,
        positions=strop.Positions(first=0, last=1),
        epochs=effort.epochs,
        batch_size=8,
        accumulate=1,
        learning_rate=4e-3,
        keep_base=0.0,
    )
    methods: Mapping[str, Callable[[strop.RunOptions], strop.RunOutcome]] = {
        "laser": lambda options: strop.search(model, tokenizer, task, search, options),
        "eigenpruning": lambda options: strop.prune(model, tokenizer, task, prune, options),
        "loreft": lambda options: strop.train(model, tokenizer, task, train, options),
    }
    drift_text = DriftText("the world's text", text)
    return {
        name: method(strop.RunOptions(out=out / name, family=family, drift_text=drift_text, rivals=False)).result
        for name, method in methods.items()
    }


def gains_table(results: Mapping[str, Mapping[str, RunResult]]) -> Table:
    """Return what each method gained on each model, as a table.

    Args:
        results: shape → method → result.
    """
    rows = []
    for shape, of_methods in results.items():
        for method, result in of_methods.items():
            gain, price = result.comparison["test"], result.price
            drift = "-" if price is None or price.drift is None else f"{price.drift.kl:.3f}"
            rows.append((f"{shape}, {method}", *_gain_cells(result.base["test"].accuracy, gain), drift))
    columns = ("model, method", "base %", "edited %", "gain", "95 % interval", "p", "drift, nats")
    return Table("", columns, tuple(rows))


def frequency_table(results: Mapping[str, Mapping[str, RunResult]], bins: Sequence[str]) -> Table:
    """Return the accuracy gained on facts of each frequency, as a table: LASER's figure 3 (arXiv 2312.13558).

    Args:
        results: shape → method → result.
        bins: the categories, the rarest first.
    """
    rows = []
    for shape, of_methods in results.items():
        for method, result in of_methods.items():
            found = {own.name: own for own in result.categories.categories} if result.categories is not None else {}
            for name in bins:
                if name in found:
                    own = found[name]
                    low, high = own.ci95
                    cells = (f"{100 * own.base:.1f}", f"{100 * own.edited:.1f}", f"{100 * own.gain:+.1f}")
                    spelt = f"{100 * low:+.1f} to {100 * high:+.1f}"
                    rows.append((f"{shape}, {method}", name, str(own.count), *cells, spelt))
    columns = ("model, method", "stated in training", "facts", "base %", "edited %", "gain", "95 % interval")
    return Table("", columns, tuple(rows))


def figures_of(results: Mapping[str, Mapping[str, RunResult]]) -> dict[str, Any]:
    """Return the figures of both tables for a JSON file."""
    return {
        shape: {method: _figures(result) for method, result in of_methods.items()}
        for shape, of_methods in results.items()
    }


def _figures(result: RunResult) -> dict[str, Any]:
    categories = result.categories.categories if result.categories is not None else ()
    return {
        "base": result.base["test"].to_json(),
        "edited": result.edited["test"].to_json(),
        **result.comparison["test"].to_json(),
        "edits": list(result.edits),
        "drift": result.price.to_json() if result.price is not None else None,
        "by_frequency": [{**dataclasses.asdict(own), "ci95": interval_to_json(own.ci95)} for own in categories],
    }


def _gain_cells(base: float | None, gain: Comparison) -> tuple[str, ...]:
    low, high = gain.ci95
    before = base or 0.0
    return (
        f"{100 * before:.1f}",
        f"{100 * (before + gain.gain):.1f}",
        f"{100 * gain.gain:+.1f}",
        f"{100 * low:+.1f} to {100 * high:+.1f}",
        spell_p_value(gain.p_value),
    )
