"""A report as Markdown: the same sections and tables, with figures told in words."""

import re

from strop.report.page.document import Code, Document, Examples, Part, Quotes
from strop.report.page.drawing import Figure
from strop.report.page.html import without_controls
from strop.tables import Table

LONGEST = 280
_MARKUP = re.compile(r"([\\`*_\[\]<>|#~])")


def to_text(document: Document, *, version: str) -> str:
    """Return a report as Markdown; what a model wrote is never taken for markup.

    Args:
        document: what it says.
        version: of Strop.
    """
    lines = [f"# {plain(document.title)}"]
    several = len(document.chapters) > 1
    if several:
        lines += ["## Side by side", *map(_part, document.comparison)]
    for chapter in document.chapters:
        lines += [f"## {plain(chapter.title)}" if several else "## The decision", plain(chapter.subtitle)]
        lines += [f"**{chapter.verdict}.** {' '.join(map(plain, chapter.sentences))}"]
        headline = chapter.headline
        if headline is not None:
            columns = (
                f"{headline.measure} before",
                "after",
                f"gain, {headline.unit}",
                "95 % interval",
                "held-out examples",
            )
            cells = (headline.before, headline.after, headline.gain, headline.interval, str(headline.count))
            lines.append(_table(Table("", columns, (cells,))))
        for section in chapter.sections:
            lines += [f"### {section.title}", *map(_part, section.parts)]
    lines.append(f"Made by Strop {version} from what the run left on disk.")
    return without_controls("\n\n".join(line for line in lines if line) + "\n")


def plain(text: str, *, most: int | None = None) -> str:
    r"""Return a text on one line, with what Markdown or HTML would take for markup escaped.

    >>> plain("a <script>\n|b| *c*")
    'a \\<script\\> \\|b\\| \\*c\\*'
    """
    line = " ".join(text.split())
    line = line if most is None or len(line) <= most else f"{line[: most - 1]}…"
    return _MARKUP.sub(r"\\\1", line)


def _part(part: Part) -> str:
    if isinstance(part, Table):
        return "\n\n".join([*([f"**{plain(part.title)}**"] if part.title else []), _table(part)])
    if isinstance(part, Figure):
        return f"*{plain(part.title)}.* {plain(part.description)}"
    if isinstance(part, Code):
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", part.text)), default=0))
        return f"{fence}sh\n{part.text}\n{fence}"
    if isinstance(part, Examples):
        title = f"{part.kind.capitalize()}: {part.count:,}"
        rows = tuple((own.prompt[-LONGEST:], own.wanted, own.before, own.after) for own in part.shown)
        return _part(Table(title, ("prompt", "right is", "before", "after"), rows)) if rows else f"**{title}**"
    if isinstance(part, Quotes):
        return _table(Table("", ("text", "before", "after"), part.rows))
    return plain(part)


def _table(table: Table) -> str:
    rows = [[plain(cell, most=LONGEST) for cell in row] for row in (table.columns, *table.rows)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---|" + "---:|" * (len(table.columns) - 1), *lines[1:]])
