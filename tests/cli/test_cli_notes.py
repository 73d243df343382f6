"""What a person should know and what stops nothing: one line on standard error, and nothing else there."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strop.anatomy import Anatomy


@pytest.fixture
def melting(tmp_path: Path, facts: Path) -> Path:
    """The small facts, whose prompts end in a space and whose answers begin without."""
    path = tmp_path / "melting.yaml"
    path.write_text(facts.read_text() + 'prompt: "{{ prompt }} "\nanswer: "{{ answer.strip() }}"\n')
    return path


@pytest.mark.filterwarnings("default::strop.errors.StropWarning")
@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_a_prompt_that_changes_with_its_answer_is_noted_in_one_line(
    strop_command: Callable[..., Any], tiny_folder: Path, melting: Path, tmp_path: Path, quiet: list[str]
) -> None:
    done = strop_command("eval", tiny_folder, "--task", melting, "--json", *quiet)
    notes = [line for line in done.err.splitlines() if line.startswith("Note: ")]
    assert done.code == 0
    assert len(notes) == 1
    assert notes[0].startswith("Note: row ")
    assert (
        " melts into the answer; begin the answer with the space, and end the prompt before it (24 rows in all)."
        in notes[0]
    )
    assert "StropWarning" not in done.err
    searched = strop_command(
        "search",
        tiny_folder,
        "--task",
        melting,
        "--out",
        tmp_path / "run",
        "--layers",
        "1",
        "--rank-fractions",
        "0.5",
        *quiet,
    )
    assert searched.code == 0
    assert searched.err.count("Note: ") == 1


def test_other_warnings_are_shown_as_python_shows_them(
    strop_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tiny_folder: Path
) -> None:
    own = Anatomy.of

    def warn(*positional: Any, **named: Any) -> Anatomy:
        warnings.warn("somebody else's", FutureWarning, stacklevel=1)
        return own(*positional, **named)

    monkeypatch.setattr("strop.anatomy.Anatomy.of", warn)
    monkeypatch.setenv("STROP_DEBUG", "1")  # the tests make an error of it, which would be reported as a bug
    before = warnings.showwarning
    with pytest.warns(FutureWarning, match="somebody else's"):
        assert strop_command("inspect", tiny_folder).code == 0
    assert warnings.showwarning is before
