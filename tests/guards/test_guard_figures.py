"""Figures drawn, and tables written, from measurements are those the measurements make; and this guard can fail."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("script", ["draw_frontier", "draw_labels", "write_tables"])
def test_figures_are_current(script: str, repository: Path) -> None:
    call = [sys.executable, str(repository / "scripts" / f"{script}.py"), "--check"]
    done = subprocess.run(call, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_figure_that_is_not_current_is_told(repository: Path, tmp_path: Path) -> None:
    stale = tmp_path / "labels.svg"
    program = (
        "import pathlib, sys; scripts, stale = sys.argv[1:]; sys.path.insert(0, scripts); sys.argv[1:] = ['--check']\n"
        "import draw_labels; draw_labels.ROOT, draw_labels.PICTURE = pathlib.Path(stale).parent, pathlib.Path(stale)\n"
        "draw_labels.main()"
    )
    call = [sys.executable, "-c", program, str(repository / "scripts"), str(stale)]
    done = subprocess.run(call, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "is not current" in done.stderr


def test_a_table_that_is_not_current_is_told_and_mended(repository: Path, tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text(
        "Before.\n\n<!-- table: evidence -->\n| stale |\n<!-- end of table -->\n\nAfter.\n", encoding="utf-8"
    )
    program = (
        "import pathlib, sys; scripts, stale = sys.argv[1:3]; sys.path.insert(0, scripts); sys.argv[1:3] = []\n"
        "import write_tables; write_tables.ROOT, write_tables.DOCUMENT = pathlib.Path(stale).parent, pathlib.Path(stale)\n"
        "write_tables.main()"
    )
    call = [sys.executable, "-c", program, str(repository / "scripts"), str(document)]
    done = subprocess.run([*call, "--check"], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "is not current" in done.stderr
    subprocess.run(call, check=True, capture_output=True)
    written = document.read_text(encoding="utf-8")
    assert written.startswith("Before.\n\n<!-- table: evidence -->\n\n| task (held out) |")
    assert written.endswith("<!-- end of table -->\n\nAfter.\n")
    assert "stale" not in written
    assert subprocess.run([*call, "--check"], check=False).returncode == 0
