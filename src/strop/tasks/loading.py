"""From a task file, or what is given in the place of one, to a task."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from strop.errors import TaskError, listed, quoted, reason_in, shortened
from strop.tasks.examples import Example
from strop.tasks.given import given_task
from strop.tasks.hub import HUB
from strop.tasks.pictures import Beside
from strop.tasks.rendering import BadRow, RenderedRows, render_rows
from strop.tasks.rows import DATA_ENDINGS, Row, Rows, read_rows
from strop.tasks.selection import Skipped
from strop.tasks.splits import deal, refuse_overlap, sample_categories, share_held, without_overlap, without_repeats
from strop.tasks.task import Task
from strop.tasks.task_file import GenerateSettings, TaskFile, read_task_file
from strop.tasks.values import NotTextError, whole_text

TaskSource = Task | str | Path | Mapping[str, Any] | Rows
"""What a task may be given as, wherever one is taken; see `load_task`."""
ENDINGS = (".yaml", ".yml")


def builtin_tasks() -> tuple[str, ...]:
    """Return the names of the tasks that come with Strop."""
    folder = resources.files("strop.tasks") / "builtin"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_task(source: TaskSource) -> Task:
    """Load a task by the name of a built-in one or the path of a task file, or make one of rows.

    Args:
        source: such as `world-facts`, or `my-facts.yaml`, or a folder that holds one task file; or a mapping of a task file's
            keys, whose `data` may be a list of dicts or a `datasets.Dataset`, as may each of `splits.files`; or such rows
            alone, with the columns `prompt` and `answer`. A task is returned as it is.

    Raises:
        TaskError: there is no such task, or its file or data do not fit the contract; the message names file, row,
            column and remedy, and how many rows do not fit.

    >>> load_task("int-mult").counts
    {'train': 200, 'select': 80, 'test': 120}
    >>> rows = [{"city": "Lyon", "land": "France"}, {"city": "Graz", "land": "Austria"}, {"city": "Kyoto", "land": "Japan"}]
    >>> template = {"prompt": "The city of {{ city }} is in", "answer": " {{ land }}"}
    >>> load_task({"name": "cities", "data": rows, **template, "splits": {"select": 0.4, "test": 0.6}}).counts
    {'select': 1, 'test': 2}
    """
    if isinstance(source, Task):
        return source
    found = read_source(source)
    bad = found.bad
    if bad:
        more = len(bad) - 1
        lister = "strop.check_task" if found.file is None else f"strop task check {shortened(found.file, most=100)}"
        others = (
            f"; {more} more row{'s do' if more > 1 else ' does'} not fit, and {lister} lists them." if more else "."
        )
        raise TaskError(f"{str(bad[0]).removesuffix('.')}{others}")
    return found.task()


@dataclasses.dataclass(frozen=True)
class ReadTask:
    """A task file with its rows, read and rendered, before they are dealt."""

    task_file: TaskFile
    rendered: Mapping[str, RenderedRows]
    """By what a source is called in errors."""
    by_split: Mapping[str, str]
    """Where splits have files of their own: by split, what its source is called."""
    file: str | None
    """What the task was named by; None where it was given as Python objects."""

    @property
    def bad(self) -> tuple[BadRow, ...]:
        """The rows that cannot become examples."""
        return tuple(row for rows in self.rendered.values() for row in rows.bad)

    def with_images_decoded(self) -> "ReadTask":
        """Return it with those rows among the bad ones whose images are damaged behind their heads: all are decoded for that."""
        return dataclasses.replace(self, rendered={name: _decoded(name, rows) for name, rows in self.rendered.items()})

    def task(self) -> Task:
        """Deal the examples into splits.

        Raises:
            TaskError: a split would be left empty, or two overlap.
        """
        return _dealt(self.task_file, {name: rows.examples for name, rows in self.rendered.items()}, self.by_split)


def read_source(source: str | Path | Mapping[str, Any] | Rows) -> ReadTask:
    """Read what a task is given as, and render its rows.

    Args:
        source: as `load_task` takes it.

    Raises:
        TaskError: as `load_task`, but for rows that do not fit.
    """
    if not isinstance(source, (str, Path)):
        task_file, given = given_task(source)
        return _read(task_file, Path(), None, given)
    text = str(source)
    if text in builtin_tasks():
        with resources.as_file(resources.files("strop.tasks") / "builtin" / f"{text}.yaml") as path:
            return _read(read_task_file(path), path.parent, text)
    path = path_of_task(text)
    return _read(read_task_file(path), path.parent, text)


def path_of_task(text: str) -> Path:
    """Return the task file that a text names: itself, or the only one in a folder."""
    try:
        path = Path(whole_text(text)).expanduser()
        missing = not path.exists() and path.suffix not in ENDINGS
        files = sorted(entry for entry in path.iterdir() if entry.suffix in ENDINGS) if path.is_dir() else [path]
    except (OSError, RuntimeError, NotTextError) as error:  # too long, or ~nobody, or no name at all
        why = getattr(error, "strerror", None) or reason_in(error)
        raise TaskError(f"The task {quoted(text)} cannot be looked for: {why}.") from None
    if missing:
        shown = shortened(text)
        near = difflib.get_close_matches(text, builtin_tasks(), n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        raise TaskError(
            f"There is no task '{shown}'{meant}: give a task file (*.yaml) or one of {', '.join(builtin_tasks())}."
        )
    if path.suffix.lower() in DATA_ENDINGS:
        raise TaskError(
            f"{shortened(text, most=200)} holds rows, and no task: write a task file (*.yaml) that says "
            f"data: {shortened(path.name)}, and what prompt: and answer: are."
        )
    if len(files) != 1:
        holds = f"{len(files)} of them, {listed(file.name for file in files)}; name one" if files else "none"
        raise TaskError(
            f"The folder {shortened(text, most=200)} stands for the task file (*.yaml) in it, and holds {holds}."
        )
    return files[0]


def _read(
    task_file: TaskFile, folder: Path, file: str | None, given: Mapping[str, Sequence[Row]] = MappingProxyType({})
) -> ReadTask:
    files = task_file.splits.files
    skipped = Skipped(task_file.skip)
    rendered: dict[str, RenderedRows] = {}
    by_split: dict[str, str] = {}
    for split, source in ({"": task_file.data} if files is None else files).items():
        assert source is not None  # the task file's own rule
        shown = source if source in given or source.startswith(HUB) else str(folder / source)
        by_split[str(split)] = shown
        if shown not in rendered:
            rows = given[source] if source in given else read_rows(source, relative_to=folder)
            beside = Beside(Path(), bounded=False) if source in given else _beside(source, folder)
            rendered[shown] = render_rows(task_file, rows, source=shown, skipped=skipped, beside=beside)
            own = rendered[shown]
            if not own.examples and not own.bad:
                raise TaskError(f"{shown}: skip: and where: leave none of its {len(rows):,} rows; let some pass.")
    if not any(rows.bad for rows in rendered.values()):
        skipped.refuse_unmet(what=" or ".join(rendered))
    return ReadTask(task_file, rendered, by_split if files is not None else {}, file)


def _decoded(source: str, rows: RenderedRows) -> RenderedRows:
    """Return rows with those among the bad ones whose images cannot be decoded."""
    whole, bad = [], list(rows.bad)
    for example in rows.examples:
        try:
            if example.image is not None:
                example.image.pixels()
            whole.append(example)
        except TaskError as error:
            bad.append(BadRow(source, example.row, f"its image: {error}"))
    return dataclasses.replace(rows, examples=tuple(whole), bad=tuple(sorted(bad, key=lambda row: row.row)))


def _beside(source: str, folder: Path) -> Beside:
    """Return where the paths of images in a source's rows begin: at its file."""
    return Beside(None if source.startswith(HUB) else (folder / Path(source).expanduser()).parent)


def _dealt(task_file: TaskFile, examples: Mapping[str, Sequence[Example]], by_split: Mapping[str, str]) -> Task:
    if by_split:
        splits: dict[str, tuple[Example, ...]] = {
            split: tuple(without_repeats(examples[source])) for split, source in by_split.items()
        }
        if "held" in splits:
            splits |= share_held(splits.pop("held"), task_file.splits)
        if task_file.splits.overlap == "drop":
            splits = without_overlap(splits)
        refuse_overlap(splits)
    else:
        (all_examples,) = examples.values()
        if task_file.per_category is not None:
            all_examples = sample_categories(all_examples, task_file.per_category, seed=task_file.splits.seed)
        splits = deal(all_examples, task_file.splits)
    generate = GenerateSettings() if task_file.score == "generate" else None
    task = Task(task_file.name, task_file.score, splits, task_file.generate or generate, task_file.label_settings())
    return task if task_file.shots is None else task.with_shots(task_file.shots.count, seed=task_file.shots.seed)
