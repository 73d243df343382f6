"""`strop report`: a page from the folders of runs, also where there is no torch."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.reported import write_full_run, write_study
from tests.fixtures.results import result_of, write_run

WITHOUT_TORCH = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "optuna", "datasets", "safetensors", "accelerate"):
            raise ImportError(f"there is no {name} here")
sys.meta_path.insert(0, Blocked())
from strop.cli import main
main()
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "facts", result_of())


def test_a_report_is_written_and_told(strop_command: Callable[..., Any], run: Path, tmp_path: Path) -> None:
    out = tmp_path / "pages" / "report.md"
    found = strop_command("report", run, "--out", out)
    assert (found.code, found.err) == (0, "")
    lines = found.out.splitlines()
    assert lines[0] == f"{run}: Keep the model as it is."
    assert lines[1].startswith("There are no single answers (answers.jsonl)")
    assert lines[2] == f"The report is in {out} ({out.stat().st_size / 1000:,.0f} kB)."
    assert out.read_text(encoding="utf-8").startswith("# tiny on small-facts\n")
    quiet = strop_command("report", run, "--out", out, "--force", "--quiet")
    assert quiet.out.splitlines() == [lines[0], lines[2]]


def test_figures_are_written_beside_it_and_told(strop_command: Callable[..., Any], run: Path, tmp_path: Path) -> None:
    (run / "result.json").unlink()
    write_study(run / "study.db")
    folder = tmp_path / "figures"
    given = ("report", run, "--out", tmp_path / "report.md", "--figures", folder)
    told = strop_command(*given).out.splitlines()[-1]
    assert told == f"Its figures are in {folder}, as SVG and PNG: sweep.svg, how-the-choice-went.svg."
    as_json = strop_command(*given, "--force", "--json").json
    assert sorted(as_json["figures"]) == sorted(str(path) for path in folder.iterdir())


def test_the_result_as_json(strop_command: Callable[..., Any], run: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.txt"
    found = strop_command("report", run, "--out", out, "--format", "md", "--json").json
    assert found["path"] == str(out)
    assert (found["verdicts"], found["examples_path"]) == (["Keep the model as it is"], None)
    assert found["bytes"] == out.stat().st_size


def test_wrong_calls_are_told(refused: Callable[..., str], run: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.md"
    assert refused("report", tmp_path / "no", "--out", out) == (
        f"There is no folder {tmp_path / 'no'}: give one that a run left (--out)."
    )
    assert refused("report", tmp_path, "--out", out).startswith(f"{tmp_path} is no run, for it holds no config.json")
    assert refused("report", run, "--out", tmp_path, code=2) == (
        f"{tmp_path} is a folder, and a file is to be written there: name a file."
    )
    out.write_text("mine", encoding="utf-8")
    assert refused("report", run, "--out", out, code=2) == (
        f"{out} is there already: name another file, or overwrite it by --force."
    )
    assert out.read_text(encoding="utf-8") == "mine"


def test_a_run_that_was_copied_to_a_machine_without_torch_makes_its_report(tmp_path: Path) -> None:
    left = shutil.ignore_patterns(
        "removed.json", "leaderboard.json", "study.db", "spectra.json"
    )  # fewer figures to draw
    shutil.copytree(write_full_run(tmp_path / "made"), tmp_path / "elsewhere" / "copied", ignore=left)
    environment = {**os.environ, "MPLCONFIGDIR": str(tmp_path / "matplotlib")}
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "report", "copied", "--json"],
        cwd=tmp_path / "elsewhere",
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["path"] == "report.html"
    page = (tmp_path / "elsewhere" / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 4
    assert (tmp_path / "elsewhere" / "report-examples.jsonl").is_file()
