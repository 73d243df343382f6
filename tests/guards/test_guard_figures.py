"""Figures drawn from measurements are those the measurements make; and this guard can fail."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("script", ["draw_frontier", "draw_labels"])
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
