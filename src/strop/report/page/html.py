"""A report as one page of HTML that stands alone: no script, nothing fetched, and what a model wrote is text."""

import itertools
import re
from importlib import resources

from strop.report.page.document import Code, Document, Examples, Quotes
from strop.report.page.drawing import Figure, with_own_names
from strop.tables import Table

MOST_BESIDE = 7
"""Columns of a table that stands beside a figure; a wider one stands below."""
LONGEST = 280
"""Characters of a prompt or an answer that are shown."""
_NO_LETTERS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def to_page(document: Document, *, version: str) -> str:
    """Return a report as HTML.

    Args:
        document: what it says.
        version: of Strop.
    """
    import jinja2
    import markupsafe

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("strop.report.page"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=False, keep_trailing_newline=True,
    )  # fmt: skip
    for name, kind in {"table": Table, "figure": Figure, "examples": Examples, "quotes": Quotes, "code": Code}.items():
        environment.tests[name] = lambda value, kind=kind: isinstance(value, kind)
    environment.tests["wordy"] = is_wordy
    environment.tests["wide"] = lambda value: isinstance(value, Table) and len(value.columns) > MOST_BESIDE
    number = itertools.count(1)
    environment.filters["drawing"] = lambda svg: markupsafe.Markup(with_own_names(svg, f"d{next(number)}-"))  # our own
    environment.filters["beginning"] = lambda text: text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    environment.filters["end"] = lambda text: text if len(text) <= LONGEST else f"…{text[1 - LONGEST :]}"
    environment.filters["typeset"] = typeset
    style = resources.files("strop.report.page").joinpath("templates/report.css").read_text(encoding="utf-8")
    page = environment.get_template("report.html.jinja").render(
        document=document, several=len(document.chapters) > 1, style=markupsafe.Markup(style), version=version
    )
    return without_controls(page)


def is_wordy(table: Table) -> bool:
    """Return whether a table holds words rather than figures: most cells behind the first have no digit, or are long."""
    cells = [cell for row in table.rows for cell in row[1:]]
    wordy = sum(len(cell) > 40 or not any(letter.isdigit() for letter in cell) for cell in cells)
    return bool(cells) and (wordy > len(cells) / 2 or table.columns[1:] == ("value",))


def typeset(text: str) -> str:
    r"""Return a line with true minus signs, and no line's end inside a figure.

    >>> typeset("-0.9 to 7.6 %, p = 2e-23, - 1").encode("unicode_escape").decode()
    '\\u22120.9 to 7.6\\xa0%, p = 2e\\u201123, - 1'
    """
    text = re.sub(r"(?<![^\s(])-(?=\d)", "\u2212", text)
    text = re.sub(r"(?<=\de)-(?=\d)", "\u2011", text)
    return re.sub(r"(?<=\d) (?=%)", "\u00a0", text)


def without_controls(text: str) -> str:
    r"""Return a text in which what no page may hold, or what turns the text around it, stands as the replacement character.

    >>> without_controls("a\x00b\n")
    'a\ufffdb\n'
    """
    return _NO_LETTERS.sub("\ufffd", text)
