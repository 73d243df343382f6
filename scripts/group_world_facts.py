"""Say which rows of `world-facts` are one observation: their column `group`.

Rows of one subject are, and so are a fact and its reverse (France -> Paris, Paris -> France), a capital's rows and its
country's, and what is said of a currency and of the one country that has it. `scripts/build_world_facts.py` groups what it
builds; called by itself, this script groups anew the rows of the data file as it stands, and needs no package::

    python scripts/group_world_facts.py
"""

from __future__ import annotations

import json
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[1] / "src" / "strop" / "tasks" / "builtin" / "world-facts.jsonl"

NAMED_BY = ("country-", "element-", "capital-", "city-", "us-city-", "language-", "currency-")
"""How the relation begins whose subject gives a group its name, the first one that there is; else any subject."""

Row = dict[str, Any]


def fold(name: str) -> str:
    """Return a name without accents, case and article, as names are compared."""
    letters = "".join(c for c in unicodedata.normalize("NFKD", name.strip()) if not unicodedata.combining(c))
    return letters.casefold().removeprefix("the ")


def linked_subjects(rows: Iterable[Row]) -> Iterator[tuple[str, str]]:
    """Yield the subjects, folded, whose rows belong together: of a fact and its reverse, of a currency and its one country."""
    facts = {(fold(row["subject"]), fold(row["answer"])) for row in rows}
    yield from ((subject, answer) for subject, answer in sorted(facts) if (answer, subject) in facts)
    users: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["relation"] == "country-currency-code":
            users[fold(row["answer"])].append(fold(row["subject"]))
    yield from ((code, countries[0]) for code, countries in users.items() if len(countries) == 1)


def with_groups(rows: list[Row]) -> list[Row]:
    """Return the rows with their group beside the subject, named as one of its subjects.

    Args:
        rows: all of them; a group they have is replaced.
    """
    leader = {fold(row["subject"]): fold(row["subject"]) for row in rows}

    def lead(subject: str) -> str:
        while leader[subject] != subject:
            subject = leader[subject]
        return subject

    for one, other in linked_subjects(rows):
        if one in leader:  # a currency may have no row of its own
            leader[lead(one)] = lead(other)
    names: dict[str, tuple[int, int, str]] = {}
    for place, row in enumerate(rows):
        own = lead(fold(row["subject"]))
        rank = next((i for i, start in enumerate(NAMED_BY) if row["relation"].startswith(start)), len(NAMED_BY))
        names[own] = min(names.get(own, (rank, place, row["subject"])), (rank, place, row["subject"]))
    return [_grouped(row, names[lead(fold(row["subject"]))][2]) for row in rows]


def _grouped(row: Row, group: str) -> Row:
    grouped: Row = {}
    for column, value in row.items():
        if column != "group":
            grouped[column] = value
        if column == "subject":
            grouped["group"] = group
    return grouped


def text_of(rows: Iterable[Row]) -> str:
    """Return rows as the data file holds them."""
    return "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)


def main() -> None:
    """Group the rows of the data file anew, and print how many groups there are."""
    rows = with_groups([json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()])
    DATA.write_bytes(text_of(rows).encode("utf-8"))
    print(f"{len(rows)} rows in {len({row['group'] for row in rows})} groups")


if __name__ == "__main__":
    main()
