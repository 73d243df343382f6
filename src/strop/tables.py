"""One table: a value that a room fills and a door draws, as Markdown, as HTML for a notebook, or as a frame of pandas."""

import dataclasses
import html
from collections.abc import Sequence
from typing import Any

from strop.errors import UsageError


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


def to_html(*parts: Table | str) -> str:
    """Draw tables, and lines of text between them, as HTML; what a model wrote is never taken for markup.

    Args:
        parts: a table, or a line.

    >>> to_html("1 < 2", Table("t", ("a",), (("x",),)))
    '<p>1 &lt; 2</p><table><caption>t</caption><tr><th>a</th></tr><tr><td>x</td></tr></table>'
    """
    return "".join(f"<p>{html.escape(part)}</p>" if isinstance(part, str) else _html_table(part) for part in parts)


def _html_table(table: Table) -> str:
    rows = [_html_row(table.columns, "th"), *(_html_row(row, "td") for row in table.rows)]
    caption = f"<caption>{html.escape(table.title)}</caption>" if table.title else ""
    return f"<table>{caption}{''.join(rows)}</table>"


def _html_row(cells: tuple[str, ...], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"


def data_frame(rows: Sequence[dict[str, Any]]) -> Any:
    """Return rows as a `pandas.DataFrame`.

    Args:
        rows: column → value, each.

    Raises:
        UsageError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise UsageError("to_pandas() needs pandas, which is not here: pip install pandas.") from None
    return pandas.DataFrame(list(rows))
