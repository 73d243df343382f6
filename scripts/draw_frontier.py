"""Draw gain against drift from the base: docs/frontier.svg of all methods, docs/compositions.svg of compositions of cuts.

The figures are those of benchmarks/results; --check says whether the pictures are current.
"""

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from svg import line, sheet, text

ROOT = Path(__file__).parents[1]
RESULTS, DOCS = ROOT / "benchmarks" / "results", ROOT / "docs"
TASK = "world-facts"
COMPOSED_TASK = "world-facts-all"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 480, 70, 190, 30, 60
LEAST, MOST = 0.005, 1.0
"""Of the drifts that are drawn, in nats per token."""
NAMES: Mapping[str, str] = {
    "laser": "LASER",
    "eigenpruning": "eigenpruning",
    "eigenpruning_priced": "eigenpruning, priced",
    "sharpen_once": "sharpening, one step",
    "sharpen": "sharpening",
    "sharpen_sign": "sharpening, steps alike",
    "loreft": "LoReFT",
    "direft": "DiReFT",
    "spectrum": "spectrum",
    "bias": "bias",
    "lora": "LoRA (PEFT)",
}
PROMPTS: Mapping[str, str] = {"shots_1": "1 example in the prompt", "shots_5": "5 examples", "shots_8": "8 examples"}
COMPOSITIONS: Mapping[str, str] = {
    "single": "one cut",
    "greedy": "greedy",
    "beam": "beam",
    "ordered": "the paper's order",
    "greedy_guarded": "greedy, guarded",
    "greedy_priced": "greedy, priced",
    "beam_priced": "beam, priced",
}


@dataclasses.dataclass(frozen=True)
class Mark:
    """One edit."""

    words: str
    drift: float
    """Nats per token."""
    gain: float
    """A share of the examples, as the interval is."""
    ci95: tuple[float, float]
    filled: bool

    @classmethod
    def of(cls, words: str, row: Mapping[str, Any], *, filled: bool) -> "Mark":
        """Return the mark of a benchmark's row.

        Args:
            words: beside it.
            row: with gain, gain_ci95 and drift.
            filled: how it is drawn.
        """
        low, high = row["gain_ci95"]
        return cls(words, float(row["drift"]["kl"]), float(row["gain"]), (float(low), float(high)), filled)


def picture(title: str, marks: Sequence[Mark], levels: Mapping[str, float]) -> str:
    """Return the drawing as SVG.

    Args:
        title: of it.
        marks: the edits.
        levels: gains that are had without an edit, by their words.
    """
    ceiling = 5 * math.ceil(110 * max(*(mark.gain for mark in marks), *levels.values()) / 5)
    floor = min(0, 5 * math.floor(100 * min(mark.ci95[0] for mark in marks) / 5))
    highest = max(ceiling, 100 * max(mark.ci95[1] for mark in marks))

    def across(drift: float) -> float:
        share = math.log(max(drift, LEAST) / LEAST) / math.log(MOST / LEAST)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def up(points: float) -> float:
        return HEIGHT - BOTTOM - (points - floor) / (highest - floor) * (HEIGHT - TOP - BOTTOM)

    lines = sheet(WIDTH, HEIGHT, title)
    for drift in (0.005, 0.01, 0.03, 0.1, 0.3, 1.0):
        x = across(drift)
        lines += [line(x, TOP, x, HEIGHT - BOTTOM, "#e4e9f0"), text(x, HEIGHT - BOTTOM + 20, f"{drift:g}", "middle")]
    for points in range(floor, ceiling + 1, 5):
        y = up(points)
        lines += [line(LEFT, y, WIDTH - RIGHT, y, "#e4e9f0"), text(LEFT - 8, y + 4, str(points), "end")]
    lines.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, "drift from the base, nats per token", "middle"))
    lines.append(text(LEFT - 50, TOP - 10, "gain, points", "start"))
    for words, gain in levels.items():
        y = up(100 * gain)
        lines.append(line(LEFT, y, WIDTH - RIGHT, y, "#b08a3c", dashed=True))
        lines.append(text(WIDTH - RIGHT + 6, y + 4, words, "start", "#7a5d1f"))
    for mark in marks:
        x, y = across(mark.drift), up(100 * mark.gain)
        lines.append(line(x, up(100 * mark.ci95[0]), x, up(100 * mark.ci95[1]), "#9fb4cc"))
        fill = "#31527a" if mark.filled else "white"
        lines.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="5" fill="{fill}" stroke="#31527a"/>')
        lines.append(text(x + 9, y - 6, mark.words, "start", "#16263a"))
    return "\n".join([*lines, "</svg>", ""])


def of_methods() -> str:
    """Draw every method on one task: a filled mark is kept to the base, or needs no keeping."""
    rows = _read("evidence")["tasks"][TASK]["rows"]
    marks = []
    for name, row in rows.items():
        method = name.removesuffix("_kept")
        if method in NAMES and row.get("drift") is not None:
            words = NAMES[method] + (", kept to the base" if name.endswith("_kept") else "")
            marks.append(Mark.of(words, row, filled=name.endswith("_kept") or method.startswith("sharpen")))
    levels = {words: float(rows[name]["gain"]) for name, words in PROMPTS.items() if name in rows}
    return picture(f"Gain against drift on {TASK}", marks, levels)


def of_compositions() -> str:
    """Draw compositions of rank reductions: a filled mark is on the frontier."""
    found = _read(f"compose_{COMPOSED_TASK}")
    marks: dict[tuple[float, float], Mark] = {}
    for name, words in COMPOSITIONS.items():
        if name in found["rows"]:
            mark = Mark.of(words, found["rows"][name], filled=name in found["frontier"])
            same = marks.get((mark.drift, mark.gain))
            marks[mark.drift, mark.gain] = dataclasses.replace(same, words=f"{same.words}, {words}") if same else mark
    return picture(f"Compositions of rank reductions on {COMPOSED_TASK}", list(marks.values()), {})


def _read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


PICTURES = {"frontier.svg": of_methods, "compositions.svg": of_compositions}


def main() -> None:
    """Write the pictures, or say whether they are current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where one is not current")
    checking = parser.parse_args().check
    for name, draw in PICTURES.items():
        path, drawn = DOCS / name, draw()
        if not checking:
            path.write_text(drawn, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != drawn:
            sys.exit(f"docs/{name} is not current: run python scripts/draw_frontier.py.")


if __name__ == "__main__":
    main()
