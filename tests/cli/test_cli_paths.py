"""What a run leaves for others names no place of the machine it was made on."""

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def placed(strop_command: Any, tiny_folder: Path, facts: Path, quick: list[str], tmp_path: Path) -> list[Path]:
    """The files of a run and of a checkpoint that others read, where every option that names a file is given."""
    text = tmp_path / "notes.txt"
    text.write_text("The city of Lyon is in France and the city of Curitiba is in Brazil. " * 60)
    run, baked = tmp_path / "run", tmp_path / "baked"
    options = ["--drift-text", text, "--guard", f"{text}:500%", *quick]
    assert strop_command("search", tiny_folder, "--task", facts, "--out", run, *options, "--quiet").code == 0
    assert strop_command("bake", tiny_folder, "--recipe", run / "recipe", "--out", baked, "--quiet").code == 0
    written = [run / "result.json", run / "recipe" / "README.md"]
    return [*written, *(file for file in baked.iterdir() if file.suffix in (".md", ".json"))]


def test_cards_results_and_checkpoints_hold_no_path(placed: list[Path], tiny_folder: Path, tmp_path: Path) -> None:
    assert {file.name for file in placed} >= {"result.json", "README.md", "config.json", "strop_recipe.json"}
    for file in placed:
        text = file.read_text()
        for place in (tmp_path, tiny_folder.parent, Path.home(), Path.cwd()):
            assert f"{place}/" not in text, file
    assert f"`{tiny_folder.name}`" in placed[1].read_text()
