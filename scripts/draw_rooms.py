"""Draw the rooms of the package and what they import of each other, as docs/rooms.svg; --check says whether it is current.

Rows are the layers of the import contract in pyproject.toml, the lowest at the bottom. An arrow is an import that stands in
the code; one that other arrows imply is left out, and so are those to the files at the very bottom, which all rooms may use.
An arrow that points up would be drawn in red; the contract lets none.
"""

import argparse
import ast
import sys
import tomllib
from collections import defaultdict
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "rooms.svg"
WIDTH, ROW, BOX_WIDTH, BOX_HEIGHT, MARGIN = 1000, 64, 132, 34, 30


def layers() -> list[list[str]]:
    """Return the rooms of each layer, the highest first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    named = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[part.strip().removeprefix("strop.") for part in layer.split("|")] for layer in named]


def imports() -> dict[str, set[str]]:
    """Return for each room those it imports anything of."""
    found: dict[str, set[str]] = defaultdict(set)
    package = ROOT / "src" / "strop"
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("strop."):
                found[room].add((node.module or "").split(".")[1])
    return {room: others - {room} for room, others in found.items() if not room.startswith("__")}


def arrows(rows: list[list[str]]) -> list[tuple[str, str]]:
    """Return the imports that are not implied by others."""
    ground = {room for room in (name for row in rows for name in row) if not (ROOT / "src" / "strop" / room).is_dir()}
    direct = {room: others - ground for room, others in imports().items() if room not in ground}

    def reached(room: str) -> set[str]:
        return direct[room].union(*(reached(other) for other in direct[room]))

    return [
        (room, other)
        for room, others in sorted(direct.items())
        for other in sorted(others)
        if not any(other in reached(between) for between in others - {other})
    ]


def picture() -> str:
    """Return the drawing as SVG."""
    rows = layers()
    height = 2 * MARGIN + ROW * len(rows)
    at = {
        room: (WIDTH * (column + 1) / (len(row) + 1), MARGIN + ROW * (index + 0.5))
        for index, row in enumerate(rows)
        for column, room in enumerate(row)
    }
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="14">',
        "<title>The rooms of the package: each imports only rooms below it</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    lines += [_arrow(at[room], at[other]) for room, other in arrows(rows)]
    for room, (x, y) in at.items():
        lines.append(
            f'<rect x="{x - BOX_WIDTH / 2:.0f}" y="{y - BOX_HEIGHT / 2:.0f}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" '
            'rx="6" fill="#f3f6fb" stroke="#31527a"/>'
        )
        lines.append(f'<text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle" fill="#16263a">{escape(room)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    """Return a curve from one box to another, the further apart the further aside, so that boxes between stay free."""
    (x1, y1), (x2, y2) = start, end
    distance = (y2 - y1) / ROW
    side = 1 if (x1 + x2) <= WIDTH else -1
    bend = 0 if abs(distance) <= 1 else side * (BOX_WIDTH / 2 + 24 * abs(distance))
    middle = (x1 + x2) / 2 + bend
    colour = "#9fb4cc" if y2 > y1 or y1 == y2 else "#c22"
    return (
        f'<path d="M {x1:.0f} {y1:.0f} Q {middle:.0f} {(y1 + y2) / 2:.0f} {x2:.0f} {y2:.0f}" fill="none" '
        f'stroke="{colour}" stroke-width="1"/>'
    )


def main() -> None:
    """Write the picture, or say whether it is current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 where the picture is not current"
    )
    if parser.parse_args().check:
        current = PICTURE.is_file() and PICTURE.read_text(encoding="utf-8") == picture()
        sys.exit(0 if current else f"{PICTURE.relative_to(ROOT)} is not current: run python scripts/draw_rooms.py.")
    PICTURE.write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
