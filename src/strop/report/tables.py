"""One table, drawn for a terminal or as Markdown."""

import dataclasses

from rich.table import Table as RichTable


@dataclasses.dataclass(frozen=True)
class Table:
    """A title, column names, and rows of text; the first column is left-aligned, the others right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    first_on_one_line: bool = False
    """On a narrow terminal, wrap any column but the first."""


def to_markdown(table: Table) -> str:
    """Draw a table as Markdown.

    >>> print(to_markdown(Table("t", ("a", "b"), (("x", "1"),))))
    | a | b |
    |---|---:|
    | x | 1 |
    """
    lines = ["| " + " | ".join(table.columns) + " |", "|---|" + "---:|" * (len(table.columns) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in table.rows]
    return "\n".join(lines)


def to_rich(table: Table) -> RichTable:
    """Draw a table for a terminal."""
    drawn = RichTable(title=table.title, title_justify="left", title_style="bold", header_style="bold")
    for index, column in enumerate(table.columns):
        drawn.add_column(
            column,
            justify="left" if index == 0 else "right",
            overflow="fold",
            no_wrap=table.first_on_one_line and index == 0,
        )
    for row in table.rows:
        drawn.add_row(*row)
    return drawn
