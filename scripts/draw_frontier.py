"""Draw what each method gains against how far it drifts from the base, as docs/frontier.svg; --check says if it is current.

The figures are those of benchmarks/results/evidence.json.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from svg import line, sheet, text

ROOT = Path(__file__).parents[1]
FIGURES, PICTURE = ROOT / "benchmarks" / "results" / "evidence.json", ROOT / "docs" / "frontier.svg"
TASK = "world-facts"
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
LINES: Mapping[str, str] = {"shots_1": "1 example in the prompt", "shots_5": "5 examples", "shots_8": "8 examples"}


def picture(rows: Mapping[str, Any]) -> str:
    """Return the drawing as SVG: a filled mark is kept to the base, or needs no keeping."""
    highest = 110 * max(float(row["gain"]) for row in rows.values())
    ceiling = 5 * math.ceil(highest / 5)

    def across(drift: float) -> float:
        share = math.log(max(drift, LEAST) / LEAST) / math.log(MOST / LEAST)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def up(points: float) -> float:
        return HEIGHT - BOTTOM - points / ceiling * (HEIGHT - TOP - BOTTOM)

    lines = sheet(WIDTH, HEIGHT, f"Gain against drift on {TASK}")
    for drift in (0.005, 0.01, 0.03, 0.1, 0.3, 1.0):
        x = across(drift)
        lines += [line(x, TOP, x, HEIGHT - BOTTOM, "#e4e9f0"), text(x, HEIGHT - BOTTOM + 20, f"{drift:g}", "middle")]
    for points in range(0, ceiling + 1, 5):
        y = up(points)
        lines += [line(LEFT, y, WIDTH - RIGHT, y, "#e4e9f0"), text(LEFT - 8, y + 4, str(points), "end")]
    lines.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, "drift from the base, nats per token", "middle"))
    lines.append(text(LEFT - 50, TOP - 10, "gain, points", "start"))
    for name, words in LINES.items():
        if name in rows:
            y = up(100 * rows[name]["gain"])
            lines.append(line(LEFT, y, WIDTH - RIGHT, y, "#b08a3c", dashed=True))
            lines.append(text(WIDTH - RIGHT + 6, y + 4, words, "start", "#7a5d1f"))
    for name, row in rows.items():
        method = name.removesuffix("_kept")
        if method not in NAMES or row.get("drift") is None:
            continue
        filled = name.endswith("_kept") or method.startswith("sharpen")
        x, y = across(row["drift"]["kl"]), up(100 * row["gain"])
        low, high = (up(100 * bound) for bound in row["gain_ci95"])
        lines.append(line(x, low, x, high, "#9fb4cc"))
        lines.append(
            f'<circle cx="{x:.0f}" cy="{y:.0f}" r="5" fill="{"#31527a" if filled else "white"}" stroke="#31527a"/>'
        )
        words = NAMES[method] + (", kept to the base" if name.endswith("_kept") else "")
        lines.append(text(x + 9, y - 6, words, "start", "#16263a"))
    return "\n".join([*lines, "</svg>", ""])


def main() -> None:
    """Write the picture, or say whether it is current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 where the picture is not current"
    )
    rows = json.loads(FIGURES.read_text(encoding="utf-8"))["tasks"][TASK]["rows"]
    if parser.parse_args().check:
        current = PICTURE.is_file() and PICTURE.read_text(encoding="utf-8") == picture(rows)
        sys.exit(0 if current else f"{PICTURE.relative_to(ROOT)} is not current: run python scripts/draw_frontier.py.")
    PICTURE.write_text(picture(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
