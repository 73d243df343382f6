"""A table on a terminal, whatever its width: figures stay whole, names give way, and what is too wide is turned over."""

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from strop.tables import Table

SHORTEST_NAME = 12
"""Characters that are left of the first column before a table is turned over."""
LONGEST_WORD = 20
"""Characters of a word that is never cut, in other columns than the first."""


class TerminalTable:
    """A table that is laid out when it is drawn, for the width there is then.

    Args:
        table: what to draw.
    """

    def __init__(self, table: Table) -> None:
        self._table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table, widths = self._table, _widths(self._table, options.max_width)
        if widths is None and len(table.rows) < len(table.columns):
            table = _turned(table)
            widths = _widths(table, options.max_width)
        yield _drawn(table, widths)


def to_rich(table: Table) -> TerminalTable:
    """Draw a table for a terminal, at most as wide as that is.

    Where not all fits, headings are broken between words first, then the first column, whose words end in … where they are
    too long; a table that is still too wide, and has fewer rows than columns, is shown with its columns as rows.

    Args:
        table: what to draw.
    """
    return TerminalTable(table)


def _widths(table: Table, most: int) -> list[int] | None:
    """Return how wide each column is to be, or None where the figures do not fit."""
    columns = [(heading, [row[index] for row in table.rows]) for index, heading in enumerate(table.columns)]
    room = most - 3 * len(columns) - 1  # a border and two blanks each
    least = [_least(table, index, heading, cells) for index, (heading, cells) in enumerate(columns)]
    bodies = [max(map(cell_len, cells), default=0) for _, cells in columns]
    wanted = [max(cell_len(heading), body) for (heading, _), body in zip(columns, bodies, strict=True)]
    left = room - sum(least)
    if left < 0:
        return None
    widths = list(least)
    others = range(1, len(columns))
    for goal, chosen in ((bodies, others), (bodies, [0]), (wanted, [0]), (wanted, others)):
        for index in chosen:
            more = min(max(goal[index] - widths[index], 0), left)
            widths[index], left = widths[index] + more, left - more
    return widths


def _least(table: Table, index: int, heading: str, cells: list[str]) -> int:
    """Return the least a column can be given: its longest word, or less where words may be cut."""
    if index == 0 and table.first_on_one_line:
        return max(map(cell_len, (heading, *cells)))
    longest = max((cell_len(word) for text in (heading, *cells) for word in text.split()), default=1)
    return max(1, min(longest, LONGEST_WORD if index else SHORTEST_NAME))


def _turned(table: Table) -> Table:
    """Return a table with its columns as rows; of headings such as `after`, the one before says after what."""
    names, group = [], ""
    for name in table.columns[1:]:
        group = name.removesuffix(" before") if name.endswith(" before") else group
        names.append(f"{group} after" if name == "after" and group else name)
    rows = [(name, *(row[index] for row in table.rows)) for index, name in enumerate(names, start=1)]
    return Table(table.title, (table.columns[0], *(row[0] for row in table.rows)), tuple(rows))


def _drawn(table: Table, widths: list[int] | None) -> RichTable:
    drawn = RichTable(title=Text(table.title), title_justify="left", title_style="bold", header_style="bold")
    for index, column in enumerate(table.columns):
        drawn.add_column(
            Text(column),
            justify="left" if index == 0 else "right",
            overflow="ellipsis",
            no_wrap=table.first_on_one_line and index == 0 and widths is not None,
            width=widths[index] if widths is not None else None,
        )
    for row in table.rows:
        drawn.add_row(*map(Text, row))  # as text, so that a model's square brackets are no markup
    return drawn
