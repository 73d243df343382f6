"""Draw what a task gains by the number of its labelled examples, as docs/labels.svg; --check says if it is current.

The figures are those of benchmarks/results/labels.json.
"""

import argparse
import itertools
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from svg import line, sheet, text

ROOT = Path(__file__).parents[1]
FIGURES, PICTURE = ROOT / "benchmarks" / "results" / "labels.json", ROOT / "docs" / "labels.svg"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 420, 70, 190, 30, 60
LINES: Mapping[str, tuple[str, str]] = {
    "step": ("one sharpening step", "#31527a"),
    "shots": ("all in the prompt", "#b08a3c"),
}
"""What is drawn: its name, and its colour."""


def picture(figures: Mapping[str, Any]) -> str:
    """Return the drawing as SVG."""
    task, labels = figures["task"], {int(count): rows for count, rows in figures["labels"].items()}
    base = 100 * float(figures["base"][task]["accuracy"])
    lines = {
        name: [
            (
                count,
                100 * float(rows[name][task]["accuracy"]),
                [base + 100 * float(bound) for bound in rows[name][task]["gain_ci95"]],
            )
            for count, rows in sorted(labels.items())
            if task in rows.get(name, {})
        ]
        for name in LINES
    }
    ceiling = 5 * math.ceil(max(bounds[1] for points in lines.values() for *_, bounds in points) / 5)
    least, most = min(labels), max(labels)

    def across(count: float) -> float:
        return LEFT + math.log(count / least) / math.log(most / least) * (WIDTH - LEFT - RIGHT)

    def up(accuracy: float) -> float:
        return HEIGHT - BOTTOM - accuracy / ceiling * (HEIGHT - TOP - BOTTOM)

    drawn = sheet(WIDTH, HEIGHT, f"Accuracy on {task} by the number of labelled examples")
    for count in sorted(labels):
        x = across(count)
        drawn += [line(x, TOP, x, HEIGHT - BOTTOM, "#e4e9f0"), text(x, HEIGHT - BOTTOM + 20, f"{count}", "middle")]
    for accuracy in range(0, ceiling + 1, 5):
        y = up(accuracy)
        drawn += [line(LEFT, y, WIDTH - RIGHT, y, "#e4e9f0"), text(LEFT - 8, y + 4, str(accuracy), "end")]
    drawn += [
        text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, "labelled examples", "middle"),
        text(LEFT - 50, TOP - 10, f"held out, % ({figures['base'][task]['count']} rows)", "start"),
        line(LEFT, up(base), WIDTH - RIGHT, up(base), "#8894a5", dashed=True),
        text(WIDTH - RIGHT + 6, up(base) + 4, "the model as it is", "start"),
    ]
    for name, points in lines.items():
        drawn += _curve(
            [(across(count), up(accuracy), [up(b) for b in bounds]) for count, accuracy, bounds in points], *LINES[name]
        )
    return "\n".join([*drawn, "</svg>", ""])


def _curve(points: Sequence[tuple[float, float, Sequence[float]]], words: str, colour: str) -> list[str]:
    """Return a line through points, each with the interval of its gain, and its name where it ends."""
    if not points:
        return []
    drawn = [line(*one[:2], *other[:2], colour) for one, other in itertools.pairwise(points)]
    for x, y, (low, high) in points:
        drawn += [line(x, low, x, high, colour), f'<circle cx="{x:.0f}" cy="{y:.0f}" r="4" fill="{colour}"/>']
    x, y, _ = points[-1]
    return [*drawn, text(x + 9, y - 6, words, "start", colour)]


def main() -> None:
    """Write the picture, or say whether it is current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 where the picture is not current"
    )
    drawn = picture(json.loads(FIGURES.read_text(encoding="utf-8")))
    if parser.parse_args().check:
        current = PICTURE.is_file() and PICTURE.read_text(encoding="utf-8") == drawn
        sys.exit(0 if current else f"{PICTURE.relative_to(ROOT)} is not current: run python scripts/draw_labels.py.")
    PICTURE.write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
