"""Write the tables of docs/performance.md that come from benchmarks/results; --check says if they are current.

A table stands between a comment such as `<!-- table: evidence -->` and `<!-- end of table -->`.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS, DOCUMENT = ROOT / "benchmarks" / "results", ROOT / "docs" / "performance.md"
MARKED = re.compile(r"(<!-- table: ([a-z_]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
TASKS = ("world-facts", "int-sum", "int-mult", "boolq-choice", "arc-easy-choice")
KEPT = "_kept"
METHODS: Mapping[str, str] = {
    "shots_0": "base",
    "shots_1": "base, 1 example in the prompt",
    "shots_5": "base, 5 examples",
    "shots_8": "base, 8 examples",
    "laser": "LASER",
    "eigenpruning": "eigenpruning",
    "eigenpruning_priced": "eigenpruning, ranked by gain and price",
    "sharpen_once": "sharpening, one step",
    "sharpen_sign": "sharpening, `--precondition sign`",
    "sharpen": "sharpening",
    "loreft": "LoReFT",
    "direft": "DiReFT",
    "bias": "a bias after each block",
    "spectrum": "spectrum",
    "lora": "LoRA (PEFT)",
}
LEARNED = frozenset({"loreft", "direft", "bias", "spectrum", "lora"})
FAMILIES: Mapping[str, str] = {
    "all": "**all**",
    "sharpen": "sharpening alone",
    "train": "learned edits alone",
    "laser": "LASER alone",
    "prune": "eigenpruning alone",
    "prompt": "prompts alone",
}
NONE = "–"


def table(columns: Mapping[str, bool], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown.

    Args:
        columns: whether each is of numbers, by its head.
        rows: one cell for each column.
    """
    rule = " | ".join("---:" if numbers else "---" for numbers in columns.values())
    return "".join(f"| {line} |\n" for line in (" | ".join(columns), rule, *(" | ".join(row) for row in rows)))


def points(gain: float, interval: Sequence[float]) -> str:
    """Return a gain in points with its interval."""
    low, high = (100 * bound for bound in interval)
    return f"{100 * gain:+.1f} ({low:+.1f} to {high:+.1f})"


def percent(share: float | None) -> str:
    """Return a share of examples."""
    return f"{100 * share:.1f} %" if share is not None else NONE


def nats(drift: float) -> str:
    """Return a drift with two digits that count."""
    return "0" if drift == 0 else f"{drift:#.2g}".rstrip(".")


def categories(row: Mapping[str, Any]) -> str:
    """Return over how many categories a gain is spread, and how many fall."""
    spread = row.get("spread")
    if spread is None:
        return NONE
    found = re.fullmatch(r"Most of the gain is in (\d+ of \d+) categories(?: \(.*\))?; (\w+) falls?\.", spread)
    return f"most in {found[1]}; {found[2]} fall{'s' if found[2] in ('1', 'none') else ''}" if found else spread


def evidence() -> str:
    """Return what each method gains on each task, and what that costs."""
    tasks = json.loads((RESULTS / "evidence.json").read_text())["tasks"]
    columns = {
        "task (held out)": False, "method": False, "accuracy": True, "gain, points (95 % interval)": True,
        "macro average": True, "categories": False, "drift, nats (words changed), perplexity": True, "kB": True, "seconds": True,
    }  # fmt: skip
    rows: list[list[str]] = []
    for task in TASKS:
        own = tasks[task]["rows"]
        names = ["constant", *(name for plain in METHODS for name in (plain, plain + KEPT) if name in own)]
        for index, name in enumerate(names):
            first = f"`{task}` ({own[name]['count']})" if index == 0 else ""
            rows.append([first, *line_of(name, own[name])])
    return table(columns, rows)


def line_of(name: str, row: Mapping[str, Any]) -> list[str]:
    """Return the line of one method, but for its task."""
    drift, plain = row.get("drift"), name.removesuffix(KEPT)
    unmoved = plain in LEARNED and drift is not None and drift["kl"] == 0
    price = "0" if drift is None or drift["kl"] == 0 else (
        f"{nats(drift['kl'])} ({100 * drift['changed']:.0f} %), × {drift['perplexity_ratio']:.2f}"
    )  # fmt: skip
    words = f"best constant answer ('{row['answer'].strip()}')" if name == "constant" else METHODS[plain]
    words += (", kept to the base" if name != plain else "") + (": no epoch beats the base" if unmoved else "")
    size = None if unmoved else row.get("recipe_bytes", 4 * row["parameters"] if "parameters" in row else None)
    beside = f", beside {row['beside']}" if "beside" in row else ""
    return [
        words,
        percent(row["accuracy"]),
        "" if name == "shots_0" else points(row["gain"], row["gain_ci95"]),
        percent(row["macro"]),
        categories(row),
        NONE if name == "constant" else price,
        f"{size / 1000:.0f}" if size is not None else NONE,
        f"{row['seconds']:.0f}{beside}",
    ]


def improved(preset: str) -> Callable[[], str]:
    """Return what makes the table of one command at a preset."""

    def written() -> str:
        found = json.loads((RESULTS / f"improve_{preset}.json").read_text())
        columns = {
            "task": False, "in the race": False, "chosen": False, "held out": True, "gain, points (95 % interval)": True,
            "macro average, points; categories": False, "drift, nats": True, "tokens a request": True,
            f"seconds of {found['seconds']:.0f}": True,
        }  # fmt: skip
        rows = []
        for task in TASKS:
            own = found["tasks"].get(task, {})
            for index, family in enumerate(name for name in FAMILIES if "chosen" in own.get(name, {})):
                rows.append([f"`{task}`" if index == 0 else "", FAMILIES[family], *chosen(own[family])])
        return table(columns, rows)

    return written


def chosen(row: Mapping[str, Any]) -> list[str]:
    """Return what one race chose, and what that is worth."""
    edited = row["chosen"] != "no edit"
    asked = row["tokens_per_request"]
    spread = f"{points(row['macro_gain'], row['macro_ci95'])}; {categories(row)}" if "macro_gain" in row else NONE
    return [
        row["chosen"],
        f"{percent(row['base'])} → {percent(row['accuracy'])} of {row['count']}",
        points(row["gain"], row["gain_ci95"]) if edited else "0",
        spread,
        nats(row["drift"] or 0.0),
        f"{asked:.0f}" if asked is not None else NONE,
        f"{row['seconds']:.0f}",
    ]


TABLES: Mapping[str, Callable[[], str]] = {
    "evidence": evidence,
    "improve_quick": improved("quick"),
    "improve_good": improved("good"),
}


def written(document: str) -> str:
    """Return a document with every table made anew.

    Raises:
        KeyError: a marker names no table.
    """
    return MARKED.sub(lambda found: found[1] + "\n" + TABLES[found[2]]() + "\n" + found[3], document)


def main() -> None:
    """Write the tables, or say that they are not current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the tables are not current")
    check = parser.parse_args().check
    before = DOCUMENT.read_text(encoding="utf-8")
    after = written(before)
    if check and after != before:
        sys.exit(f"{DOCUMENT.name} is not current: run python scripts/write_tables.py")
    if not check and after != before:
        DOCUMENT.write_text(after, encoding="utf-8")
        print(f"wrote {DOCUMENT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
