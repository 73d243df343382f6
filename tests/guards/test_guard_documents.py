"""What the documents say of versions and commands is so; and these guards can fail."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import strop
from strop.cli import app

NAMES_IN_TEXT = re.compile(r"`strop ((?!=)[^`\n]+)`")
PLACEHOLDERS = {"…", "..."}


def commands_of(text: str) -> list[list[str]]:
    """Return every call of strop a page shows, in a block or in a line of text, as words."""
    blocks = re.findall(r"```(?:sh|bash|console|shell)\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    calls = [line.strip().removeprefix("strop ") for line in lines if line.strip().startswith("strop ")]
    return [shlex.split(call, comments=True) for call in calls + NAMES_IN_TEXT.findall(text)]


def complaint(words: list[str]) -> str | None:
    """Return what is wrong with a call, or None: a command that is not there, or an option it does not take."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    if words[0] in {"--help", "-h", "--version", "COMMAND"}:
        return None
    if words[0] not in commands:
        return f"there is no command {words[0]}"
    command = commands[words[0]]
    while (inner := getattr(command, "commands", {})) and len(words) > 1:
        if words[1] not in inner:
            return f"{words[0]} has no command {words[1]}"
        command, words = inner[words[1]], words[1:]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
    unknown = [word for word in words[1:] if re.match(r"--?[a-z]", word) and word.split("=")[0] not in known]
    return f"{words[0]} has no option {unknown[0]}" if unknown else None


def pages(repository: Path) -> list[Path]:
    return [repository / "README.md", *sorted((repository / "docs").rglob("*.md"))]


def test_every_command_the_documents_show_is_there(repository: Path) -> None:
    wrong = {
        f"{page.name}: strop {' '.join(words)}": said
        for page in pages(repository)
        for words in commands_of(page.read_text(encoding="utf-8"))
        if (said := complaint(words)) is not None
    }
    assert wrong == {}


def test_the_readme_shows_the_main_commands(repository: Path) -> None:
    shown = {words[0] for words in commands_of((repository / "README.md").read_text(encoding="utf-8"))}
    assert {"search", "bake"} <= shown


def test_the_examples_in_the_help_are_calls_that_parse() -> None:
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, command in commands.items():
        examples = re.findall(r"\[bold\]strop (.+?)\[/bold\]", command.help or "")
        assert examples, name
        for example in examples:
            assert complaint(shlex.split(example)) is None
            assert shlex.split(example)[0] == name


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("```sh\nstrop serach x\n```", "there is no command serach"),
        ("```sh\n$ strop eval x \\\n  --taks y  # why\n```", "eval has no option --taks"),
        ("Then call `strop bake x --recpie y`.", "bake has no option --recpie"),
        ("```sh\nstrop task chekc x\n```", "task has no command chekc"),
        ("Then `strop task check x --modle y`.", "check has no option --modle"),
    ],
)
def test_the_guard_of_commands_can_fail(page: str, said: str) -> None:
    (words,) = commands_of(page)
    assert complaint(words) == said


def top_version(changelog: str) -> str | None:
    """Return the newest version a changelog names, the unreleased part left aside."""
    found = re.search(r"^## \[(\d+\.\d+\.\d+[^\]]*)\]", changelog, flags=re.MULTILINE)
    return found[1] if found else None


def test_the_version_is_that_of_the_changelog(repository: Path) -> None:
    assert top_version((repository / "CHANGELOG.md").read_text(encoding="utf-8")) == strop.__version__


def test_the_guard_of_versions_can_fail() -> None:
    assert top_version("# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2030-01-01\n\n## [0.1.0]\n") == "0.2.0"
    assert top_version("# Changelog\n") is None
