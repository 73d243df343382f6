"""What a helper must know before it can take part in a choice: which model, which select examples, which settings."""

import base64
import dataclasses
import datetime
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Family, family_as_yaml, read_family
from strop.checkpoints import identify
from strop.errors import BaseMismatchError, RunError
from strop.proving.assignment import Assignment
from strop.proving.options import RunOptions
from strop.proving.reads import what_is_read
from strop.recipe import Recipe
from strop.runs import versions
from strop.scoring import Resources, asks_for_the_time, now
from strop.tasks import Task, task_from_json, task_to_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class Notice:
    """A run as a helper must know it; all of it JSON can hold. No test example is in it."""

    strop: str
    """The version that began the run."""
    command: str
    plan: Mapping[str, Any]
    model: str
    """A zoo name, a hub id, or a folder on the machine that began the run."""
    revision: str | None
    dtype: str
    fingerprint: str
    """Of all weights."""
    reads: Mapping[str, Any]
    """What tells the tokens of the prompts, and the way the model computes, from others."""
    task: Mapping[str, Any]
    """With no other examples than those of the select split that the choice is made by."""
    family: str | None = None
    """The spelling of the architecture, as a file's content."""
    after: Mapping[str, str] | None = None
    """The files of the recipe to begin with, in base 64."""
    resources: Mapping[str, int] | None = None
    now: str | None = None
    """What chat templates took for now when the run began."""

    @classmethod
    def of(cls, given: Assignment, *, command: str, plan: Mapping[str, Any], options: RunOptions) -> "Notice":
        """Return the notice of a run.

        Args:
            given: what it is about.
            command: search, or another whose trials others can do.
            plan: its settings, as config.json holds them.
            options: of the run.
        """
        base, folder = given.base, Path(given.base.id).expanduser()
        select = given.task.examples("select", limit=plan["select_limit"])
        content = task_to_json(dataclasses.replace(given.task, splits={"select": select}))
        dated = asks_for_the_time(select[:1], given.tokenizer)
        return cls(
            strop=versions()["strop"],
            command=command,
            plan=plan,
            model=str(folder.resolve()) if folder.is_dir() else base.id,
            revision=base.revision,
            dtype=str(given.model.dtype).removeprefix("torch."),
            fingerprint=base.fingerprint,
            reads=what_is_read(given.model, given.tokenizer, task_from_json(content)),
            task=content,
            family=family_as_yaml(options.family) if options.family is not None else None,
            after=_files_of(options.after) if options.after is not None else None,
            resources=dataclasses.asdict(options.resources) if options.resources is not None else None,
            now=now().isoformat() if dated else None,
        )

    @classmethod
    def read(cls, content: Mapping[str, Any], *, where: str) -> "Notice":
        """Return the notice that a study holds.

        Args:
            content: as `dataclasses.asdict` wrote it.
            where: what to call the study in errors.

        Raises:
            RunError: another version of Strop wrote it.
        """
        own = versions()["strop"]
        if content.get("strop") != own:
            raise RunError(
                f"The search in {where} is of Strop {content.get('strop')}, and this is {own}: install the same on all machines."
            )
        return cls(**content)

    def torch_dtype(self) -> torch.dtype:
        """Return the kind of number the model holds."""
        found = getattr(torch, self.dtype)
        assert isinstance(found, torch.dtype)
        return found

    def read_task(self) -> Task:
        """Return the task, with its select split alone."""
        return task_from_json(self.task)

    def options(self, **more: Any) -> RunOptions:
        """Return what the run was asked with besides its plan.

        Args:
            more: options of the helper's own.
        """
        with tempfile.TemporaryDirectory() as scratch:
            return RunOptions(
                after=_recipe_of(self.after, Path(scratch)) if self.after is not None else None,
                family=_family_of(self.family, Path(scratch)) if self.family is not None else None,
                resources=Resources(**self.resources) if self.resources is not None else None,
                **more,
            )

    @property
    def moment(self) -> datetime.datetime | None:
        """What chat templates take for now; None where they name no time."""
        return datetime.datetime.fromisoformat(self.now) if self.now is not None else None

    def check(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, *, where: str) -> None:
        """Make sure that a helper's model is the run's, and reads what that one reads.

        Args:
            model: the helper's.
            tokenizer: the helper's.
            task: from `read_task`.
            where: what to call the study in errors.

        Raises:
            BaseMismatchError: it is another.
        """
        found = identify(model)
        if found.fingerprint != self.fingerprint:
            raise BaseMismatchError(
                f"The search in {where} is of {self.model} ({self.fingerprint[:8]}), and the weights of {found.id} are others "
                f"({found.fingerprint[:8]}): name a copy of that model."
            )
        if what_is_read(model, tokenizer, task) != dict(self.reads):
            raise BaseMismatchError(
                f"The weights of {found.id} are those of the search in {where}, and its tokenizer, chat template or config are "
                "others: copy the whole folder."
            )


def _files_of(recipe: Recipe) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = recipe.save(Path(scratch) / "recipe")
        return {file.name: base64.b64encode(file.read_bytes()).decode("ascii") for file in folder.iterdir()}


def _recipe_of(files: Mapping[str, str], scratch: Path) -> Recipe:
    folder = scratch / "recipe"
    folder.mkdir()
    for name, content in files.items():
        (folder / Path(name).name).write_bytes(base64.b64decode(content))
    return Recipe.load(folder)


def _family_of(content: str, scratch: Path) -> Family:
    file = scratch / "family.yaml"
    file.write_text(content, encoding="utf-8")
    return read_family(file)
