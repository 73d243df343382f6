"""The figures of a report as files of their own, to be put into a paper or a talk."""

import re
from pathlib import Path

from strop.files import refuse_written
from strop.report.page.document import Document
from strop.report.page.drawing import Figure

SUFFIXES = (".svg", ".png")
"""Of the files of each figure."""


def figure_files(document: Document, folder: Path, *, force: bool) -> dict[Path, Figure]:
    """Return which file is to hold which figure: named after its section, and after its run where there are several.

    Args:
        document: the report.
        folder: for the files.
        force: overwrite those that are there.

    Raises:
        UsageError: a file may not be written.
    """
    parts = [("comparison", part) for part in document.comparison]
    for chapter in document.chapters:
        before = f"{chapter.title} " if len(document.chapters) > 1 else ""
        parts += [(before + section.title, part) for section in chapter.sections for part in section.parts]
    found: dict[Path, Figure] = {}
    for title, part in parts:
        if isinstance(part, Figure):
            name = _free(_plain(title), folder, found)
            found |= {folder / f"{name}{suffix}": part for suffix in SUFFIXES}
    for path in found:
        refuse_written(path, force=force)
    return found


def _plain(title: str) -> str:
    """Return a file's name of a title.

    >>> _plain("How the choice went")
    'how-the-choice-went'
    """
    return re.sub(r"[^a-z0-9._]+", "-", title.lower()).strip("-.") or "figure"


def _free(name: str, folder: Path, taken: dict[Path, Figure]) -> str:
    """Return a name that no other figure has: this, or with a number behind it."""
    number = 1
    while folder / f"{name}{'' if number == 1 else f'-{number}'}{SUFFIXES[0]}" in taken:
        number += 1
    return name if number == 1 else f"{name}-{number}"
