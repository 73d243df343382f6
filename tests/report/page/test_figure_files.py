"""Figures as files of their own: a sweep as LASER's Figure 2, SVG and PNG, from a run that is finished and from one that is not."""

import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure as Canvas
from tests.fixtures.reported import write_study

from strop.errors import UsageError
from strop.files import write_json
from strop.findings import SweepTable, loss_by_layer_and_rank
from strop.report import write_report
from strop.report.page import charts
from strop.report.page.document import Chapter, Document, Section
from strop.report.page.drawing import PLACEHOLDERS, PRINTED
from strop.report.page.figure_files import figure_files
from strop.report.sweep import sweep_table
from strop.runs import read_trials

SHARES = (0.005, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9)
SWEEP = SweepTable(
    base=3.0,
    examples=40,
    losses={
        kind: {share: {layer: 2.5 + share + layer / 10 + up for layer in range(5)} for share in SHARES}
        for up, kind in enumerate(("down", "up"))
    },
)


@pytest.fixture
def going_on(tmp_path: Path) -> Path:
    """The folder of a search that is not finished."""
    folder = tmp_path / "run"
    folder.mkdir()
    write_json(folder / "config.json", {"run": "abc", "command": "search"})
    write_study(folder / "study.db")
    return folder


def loss_of(run: Path) -> SweepTable:
    """Return the sweep that a run holds."""
    found = loss_by_layer_and_rank(read_trials(run))
    assert found is not None
    return found


def panels_of(table: SweepTable) -> list[Any]:
    """Return the axes a sweep is drawn on."""
    figure = charts.sweep(table)
    axes = list(Canvas().subplots(figure.rows, figure.columns, squeeze=False).flat)
    figure.draw(axes)
    return axes


def test_a_sweep_has_a_panel_for_each_matrix_type_and_a_line_for_each_rank_fraction() -> None:
    panels = panels_of(SWEEP)
    assert [axes.get_title(loc="left") or axes.get_title() for axes in panels] == ["down", "up"]
    for kind, axes in zip(SWEEP.losses, panels, strict=True):
        base, *lines = axes.get_lines()
        assert set(base.get_ydata()) == {3.0}
        assert base.get_linestyle() == "--"
        assert [line.get_label() for line in lines] == [f"{100 * share:.3g} %" for share in SHARES]
        for line, losses in zip(lines, SWEEP.losses[kind].values(), strict=True):
            assert dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) == losses
        assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 9


def test_few_layers_at_a_share_are_dots() -> None:
    few = SweepTable(base=None, examples=8, losses={"up": {0.1: {0: 2.0, 4: 3.0}}})
    (line,) = panels_of(few)[0].get_lines()
    assert (line.get_linestyle(), line.get_marker()) == ("None", ".")


def test_the_table_beside_it_holds_the_best_layer_of_each_cell() -> None:
    table = sweep_table(SWEEP)
    assert table.columns == ("matrix type", "0.5 %", "1 %", "5 %", "10 %", "20 %", "40 %", "60 %", "80 %", "90 %")
    assert table.rows[0][:3] == ("down", "2.505 (0)", "2.510 (0)")


def test_every_figure_is_written_twice_and_stands_alone(going_on: Path, tmp_path: Path) -> None:
    folder = tmp_path / "figures"
    written = write_report(going_on, out=tmp_path / "page.html", figures=folder)
    assert {path.name for path in written.figures} == {path.name for path in folder.iterdir()}
    assert {path.name for path in written.figures} == {
        f"{name}.{kind}" for name in ("sweep", "how-the-choice-went") for kind in ("svg", "png")
    }
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG\r\n")
    content = (folder / "sweep.svg").read_bytes()
    assert xml.etree.ElementTree.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"
    text = content.decode().lower()
    assert not any(colour in text for colour in PLACEHOLDERS.values())
    assert any(colour in text for colour in PRINTED.values())
    assert "var(--" not in text
    assert "<text" not in text  # letters are drawn, the same everywhere
    assert "var(--six)" in (tmp_path / "page.html").read_text(
        encoding="utf-8"
    )  # the page's own colours are its own still
    charts.sweep(loss_of(going_on), finished=False).write(tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_bytes() == content


def test_the_printed_colours_are_the_light_pages() -> None:
    style = Path(charts.__file__).with_name("templates") / "report.css"
    light = style.read_text(encoding="utf-8").split("}")[0]
    assert PRINTED.keys() == PLACEHOLDERS.keys()
    assert all(f"--{name}: {colour};" in light for name, colour in PRINTED.items())


def test_of_several_runs_each_figure_is_named_after_its_run() -> None:
    drawn = charts.sweep(SWEEP)
    chapters = [
        Chapter(name, "", "", "neutral", (), None, (Section("How it Went", (drawn, drawn)),)) for name in ("One", "two")
    ]
    document = Document("both", tuple(chapters), (drawn,))
    assert [path.name for path in figure_files(document, Path("figures"), force=False) if path.suffix == ".svg"] == [
        "comparison.svg", "one-how-it-went.svg", "one-how-it-went-2.svg", "two-how-it-went.svg", "two-how-it-went-2.svg",
    ]  # fmt: skip


def test_a_figure_that_is_there_is_not_overwritten_unasked(going_on: Path, tmp_path: Path) -> None:
    folder = tmp_path / "figures"
    folder.mkdir()
    (folder / "sweep.svg").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match=r"sweep.svg is there already: name another file, or overwrite it by --force"):
        write_report(going_on, out=tmp_path / "page.html", figures=folder)
    assert not (tmp_path / "page.html").exists()
    assert [path.name for path in folder.iterdir()] == ["sweep.svg"]


def test_a_search_that_is_not_finished_is_said_to_go_on(going_on: Path, tmp_path: Path) -> None:
    written = write_report(going_on, out=tmp_path / "page.md", format="md")
    assert written.figures == ()
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "The search is not finished: 20 edits were tried so far." in text
    assert "Lowest loss, and of which layer" in text
    assert charts.sweep(SWEEP, finished=False).title == "Loss against layer and rank, on 40 examples, unfinished"
