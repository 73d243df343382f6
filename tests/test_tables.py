"""A table as Markdown, as HTML and as a frame; what a model wrote is never markup."""

import sys

import pytest

from strop.errors import UsageError
from strop.tables import Table, data_frame, to_html, to_markdown

ODD = Table("<b>title</b>", ("a|b", "n"), (("<script>", "1 & 2"),))


def test_html_escapes_what_stands_in_it() -> None:
    drawn = to_html(ODD, "<i>line</i>")
    assert "<script>" not in drawn
    assert "&lt;script&gt;" in drawn
    assert "<caption>&lt;b&gt;title&lt;/b&gt;</caption>" in drawn
    assert drawn.endswith("<p>&lt;i&gt;line&lt;/i&gt;</p>")


def test_a_table_without_a_title_has_no_caption() -> None:
    assert "caption" not in to_html(Table("", ("a",), (("x",),)))


def test_markdown_escapes_bars() -> None:
    assert to_markdown(ODD).splitlines()[0] == r"| a\|b | n |"


def test_a_frame_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(data_frame([{"a": 1, "b": "x"}]).columns) == ["a", "b"]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="needs pandas, which is not here: pip install pandas"):
        data_frame([])
