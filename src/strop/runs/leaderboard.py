"""leaderboard.json: everything that was in the running for a choice, side by side, on the select split."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from strop.files import write_json
from strop.runs.reading import reading
from strop.runs.result import GuardReading
from strop.statistics import Comparison, Drift, Figures
from strop.tables import Table, data_frame, to_html

FORMAT = 1

State = Literal["chosen", "tried", "stopped", "left out"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standing:
    """How one candidate stands: what it is, what select says of it, and what it costs.

    Figures are those of the most examples it was scored on; `loss` is a loss, and lower is better.
    """

    name: str
    """Of the candidate, which no other of the leaderboard has."""
    family: str
    """laser, prune, sharpen, train, prompt, or none for the model as it is."""
    setting: str
    """In words."""
    state: State
    """`tried` to the end, `stopped` early for others were better, or `left out`, never begun."""
    why: str = ""
    """Of the state, in one sentence; empty where it says enough."""
    select: Figures | None = None
    """None where it was never scored; their `count` is how many examples it was scored on."""
    comparison: Comparison | None = None
    """With the model as it is, on those examples."""
    drift: Drift | None = None
    """From the base; None where it was not measured."""
    guards: tuple[GuardReading, ...] = ()
    """What the guards measured."""
    parameters: int = 0
    """Numbers it learned or decided."""
    bytes: int = 0
    """Of its recipe's tensors."""
    bakeable: bool = True
    """Whether an ordinary checkpoint can hold it."""
    seconds: float = 0.0
    """Spent on it, all rounds together."""
    tokens_per_request: float | None = None
    """Of a prompt, mean; None where a model reads no tokens."""
    test: Comparison | None = None
    """With the model as it is, on held-out examples: only of the one that was chosen."""

    def to_json(self) -> dict[str, Any]:
        """Return what a file holds."""
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("select", "comparison", "drift", "test"):
            content[name] = content[name].to_json() if content[name] is not None else None
        content["guards"] = [dataclasses.asdict(own) for own in self.guards]
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Standing":
        """Return the standing a file holds.

        Raises:
            KeyError: a figure is missing.
            TypeError: a field is unknown.
        """
        kinds: dict[str, Any] = {"select": Figures, "comparison": Comparison, "drift": Drift, "test": Comparison}
        read = {
            name: kind.from_json(content[name]) if content.get(name) is not None else None
            for name, kind in kinds.items()
        }
        guards = tuple(GuardReading.from_json(own) for own in content.get("guards", ()))
        return cls(**{**content, **read, "guards": guards})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """All that was in the running, the best first.

    >>> board = Leaderboard(standings=(Standing(name="no edit", family="none", setting="as it is", state="chosen"),))
    >>> board.chosen.name
    'no edit'
    """

    standings: tuple[Standing, ...]
    objective: str = "average"
    """Which accuracy the choice maximised."""
    spent_seconds: float = 0.0
    """All sittings added up, loading included."""
    budget_seconds: float | None = None
    """None for no limit."""
    decision: str = ""
    """What was chosen, and why, in a few sentences."""

    @property
    def chosen(self) -> Standing:
        """The one that was chosen, or leads so far; the model as it is where there is none."""
        for state in ("chosen", "tried"):
            for own in self.standings:
                if own.state == state:
                    return own
        return self.standings[0]

    def table(self, *, title: str = "Leaderboard") -> Table:
        """Return it as a table: the best first, what was left out last."""
        measured = next((own.select for own in self.standings if own.select is not None), None)
        name = "loss" if measured is None or measured.accuracy is None else "accuracy"
        name = measured.metric[0] if measured is not None and measured.metric is not None else name
        columns = (
            "candidate", f"{name} on select", "loss", "gain (95 % interval)", "drift", "tokens", "numbers", "kB", "seconds",
        )  # fmt: skip
        return Table(title, columns, tuple(_row(own, name) for own in self.standings))

    def to_json(self) -> dict[str, Any]:
        """Return the content of leaderboard.json."""
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"format": FORMAT, **content, "standings": [own.to_json() for own in self.standings]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Leaderboard":
        """Return the leaderboard whose content this is.

        Raises:
            KeyError: a field is missing.
            TypeError: a field is unknown.
            ValueError: it is of another format.
        """
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, and this version reads {FORMAT}")
        fields = {name: value for name, value in content.items() if name != "format"}
        return cls(**{**fields, "standings": tuple(Standing.from_json(own) for own in content["standings"])})

    def save(self, path: str | Path) -> Path:
        """Write it as a JSON file, and return its path.

        Args:
            path: of the file.
        """
        write_json(Path(path), self.to_json())
        return Path(path)

    @classmethod
    def read(cls, path: Path) -> "Leaderboard":
        """Read a leaderboard.json.

        Raises:
            RunError: it is not there or cannot be read.
        """
        with reading(path, otherwise="is not a leaderboard of this version: {}."):
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))

    def to_pandas(self) -> Any:
        """Return it as a `pandas.DataFrame`, a candidate a row.

        Raises:
            UsageError: pandas is not installed.
        """
        return data_frame([_flat(own) for own in self.standings])

    def _repr_html_(self) -> str:
        return to_html(*([self.decision] if self.decision else []), self.table())


def _row(own: Standing, name: str) -> tuple[str, ...]:
    figures, compared = own.select, own.comparison
    label = own.name if own.state == "tried" else f"{own.name} ({own.state})"
    if figures is None:
        return (label, *("–",) * 8)
    measured = figures.metric[1] if figures.metric is not None else figures.accuracy
    shown = f"{100 * measured:.1f} %" if name == "accuracy" and measured is not None else "–"
    shown = f"{measured:.4f}" if name not in ("accuracy", "loss") and measured is not None else shown
    gain = "–"
    if compared is not None:
        (low, high), points = compared.ci95, 100 if measured is not None else 1
        digits = 1 if measured is not None else 3
        gain = (
            f"{points * compared.gain:+.{digits}f} ({points * low:+.{digits}f} to {points * high:+.{digits}f}) "
            f"of {figures.count}"
        )
    return (
        label,
        shown,
        f"{figures.loss:.3f}",
        gain,
        own.drift.spelt_kl if own.drift is not None else "–",
        f"{own.tokens_per_request:.0f}" if own.tokens_per_request is not None else "–",
        f"{own.parameters:,}",
        f"{own.bytes / 1000:,.0f}",
        f"{own.seconds:.0f}",
    )


def _flat(own: Standing) -> dict[str, Any]:
    """Return a standing as one row of plain values."""
    figures = own.select.to_json() if own.select is not None else {}
    low, high = own.comparison.ci95 if own.comparison is not None else (None, None)
    return {
        "name": own.name, "family": own.family, "setting": own.setting, "state": own.state, "why": own.why, **figures,
        "gain": own.comparison.gain if own.comparison is not None else None, "ci95_low": low, "ci95_high": high,
        "drift": own.drift.kl if own.drift is not None else None,
        "guards_hold": all(reading.holds for reading in own.guards),
        "parameters": own.parameters, "bytes": own.bytes, "bakeable": own.bakeable, "seconds": own.seconds,
        "tokens_per_request": own.tokens_per_request,
        "test_gain": own.test.gain if own.test is not None else None,
    }  # fmt: skip
