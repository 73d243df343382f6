"""One table, drawn for a terminal or as Markdown."""

import dataclasses

from rich.table import Table as RichTable
from rich.text import Text


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
    lines = [_markdown_row(table.columns), "|---|" + "---:|" * (len(table.columns) - 1)]
    lines += [_markdown_row(row) for row in table.rows]
    return "\n".join(lines)


def _markdown_row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def to_rich(table: Table) -> RichTable:
    """Draw a table for a terminal."""
    drawn = RichTable(title=Text(table.title), title_justify="left", title_style="bold", header_style="bold")
    for index, column in enumerate(table.columns):
        drawn.add_column(
            Text(column),
            justify="left" if index == 0 else "right",
            overflow="fold",
            no_wrap=table.first_on_one_line and index == 0,
        )
    for row in table.rows:
        drawn.add_row(*map(Text, row))  # as text, so that a model's square brackets are no markup
    return drawn
