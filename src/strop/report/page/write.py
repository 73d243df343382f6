"""Writing a report: read the runs, say what they show, draw it, and put every changed example beside it."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from strop import __version__
from strop.errors import UsageError
from strop.files import refuse_written, replacing_file, write_text
from strop.findings import changed_examples
from strop.report.page.comparison import comparison_of
from strop.report.page.decision import decision_sentences, headline_of, verdict_of
from strop.report.page.document import Chapter, Document, Section
from strop.report.page.drawing import Figure
from strop.report.page.figure_files import figure_files
from strop.report.page.html import to_page
from strop.report.page.markdown import to_text
from strop.report.page.run_files import RunFiles
from strop.report.page.sections import sections_of

ReportFormat = Literal["html", "md"]
LARGEST_BYTES = 1_000_000
"""Of a page: what is larger loses figures of single runs, and says so."""
LEFT_OUT = (
    "Figures of single runs are left out, for the page would be larger than a megabyte: report fewer runs at a time."
)


@dataclasses.dataclass(frozen=True)
class WrittenReport:
    """What was written, and what it says first."""

    path: Path
    examples_path: Path | None
    """Where all changed examples are; None where there are none."""
    bytes: int
    verdicts: tuple[str, ...]
    """The decision of each run, in a few words."""
    missing: tuple[str, ...]
    """What the report would show and cannot."""
    figures: tuple[Path, ...] = ()
    """The files of single figures, where they were asked for."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        content = {**dataclasses.asdict(self), "path": str(self.path), "figures": [str(own) for own in self.figures]}
        return {**content, "examples_path": str(self.examples_path) if self.examples_path is not None else None}


def write_report(
    *runs: str | Path,
    out: str | Path | None = None,
    format: ReportFormat = "html",
    figures: str | Path | None = None,
    force: bool = False,
) -> WrittenReport:
    """Write a report of one run, or of several with a comparison first, as one page that stands alone.

    It needs no model and no torch, only what the runs left on disk.

    Args:
        runs: their folders.
        out: the file to write; `report.html` or `report.md` in the folder you are in by default.
        format: html or md.
        figures: a folder for every figure as a file of its own, as SVG and as PNG; none by default.
        force: overwrite a file that is there.

    Raises:
        UsageError: no run is named, the format is none of these, or the file may not be written.
        RunError: a folder holds no run, or a file in it is damaged.
    """
    if not runs:
        raise UsageError("A report is of one run or more: give their folders.")
    if format not in get_args(ReportFormat):
        raise UsageError(f"A report is written as {' or '.join(get_args(ReportFormat))}, not as {format!r}.")
    path = Path(out) if out is not None else Path(f"report.{format}")
    beside = path.with_name(f"{path.stem}-examples.jsonl")
    refuse_written(path, force=force)
    refuse_written(beside, force=force)
    found = [RunFiles.read(Path(run)) for run in runs]
    document = document_of(found, examples_file=beside.name)
    drawn = figure_files(document, Path(figures), force=force) if figures is not None else {}
    text = to_text(document, version=__version__) if format == "md" else _page(document)
    has_examples = _write_examples(beside, found)
    write_text(path, text)
    for file, figure in drawn.items():
        figure.write(file)
    return WrittenReport(
        path,
        beside if has_examples else None,
        len(text.encode("utf-8")),
        tuple(chapter.verdict for chapter in document.chapters),
        tuple(line for run in found for line in run.missing),
        tuple(drawn),
    )


def document_of(runs: Sequence[RunFiles], *, examples_file: str) -> Document:
    """Return what a report of runs says.

    Args:
        runs: read from their folders.
        examples_file: the name of the file with all changed examples.
    """
    names = _distinct([run.name for run in runs])
    chapters = tuple(
        _chapter(run, name, alone=len(runs) == 1, examples_file=examples_file)
        for run, name in zip(runs, names, strict=True)
    )
    if len(runs) == 1:
        return Document(_title(runs[0]), chapters)
    return Document(f"{len(runs)} runs side by side", chapters, comparison_of(list(runs), names))


def _distinct(names: list[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(names, start=1)]


def _title(run: RunFiles) -> str:
    if run.result is not None:
        return f"{run.result.base_model.id} on {run.result.task.name}"
    model, task = (run.config.get(key) for key in ("base_model", "task"))
    if isinstance(model, dict) and isinstance(task, dict):
        return f"{model.get('id', 'a model')} on {task.get('name', 'a task')}"
    return run.name


def _chapter(run: RunFiles, name: str, *, alone: bool, examples_file: str) -> Chapter:
    verdict, mood = verdict_of(run)
    result = run.result
    command = result.command if result is not None else run.config.get("command", "")
    by = f"by strop {command}, in the run {name}" if command else f"in the run {name}"
    return Chapter(
        title=name,
        subtitle=by if alone else f"{_title(run)}, {by}",
        verdict=verdict,
        mood=mood,
        sentences=decision_sentences(run),
        headline=headline_of(result) if result is not None else None,
        sections=sections_of(run, examples_file=examples_file),
    )


def _page(document: Document) -> str:
    """Return the page, without figures of single runs where it would be too large."""
    page = to_page(document, version=__version__)
    if len(page.encode("utf-8")) < LARGEST_BYTES:
        return page
    chapters = tuple(
        dataclasses.replace(chapter, sections=tuple(_without_figures(own) for own in chapter.sections))
        for chapter in document.chapters
    )
    lighter = dataclasses.replace(document, chapters=chapters, note=LEFT_OUT)
    return to_page(lighter, version=__version__)


def _without_figures(section: Section) -> Section:
    parts = tuple(part.description if isinstance(part, Figure) else part for part in section.parts)
    return dataclasses.replace(section, parts=parts)


def _write_examples(path: Path, runs: Sequence[RunFiles]) -> bool:
    """Write all changed examples of all runs, one a line; return whether there are any."""
    lines = []
    for run in runs:
        found = changed_examples(run.answers)
        for kind in ("fixed", "broken") if found is not None else ():
            lines += [
                {"run": str(run.folder), "change": kind, **_without_nan(dataclasses.asdict(own))}
                for own in getattr(found, kind)
            ]
    if not lines:
        path.unlink(missing_ok=True)  # of an earlier report under this name
        return False
    with replacing_file(path) as temporary, temporary.open("w", encoding="utf-8", errors="replace") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return True


def _without_nan(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: None if value != value else value for name, value in fields.items()}
