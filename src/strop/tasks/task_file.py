"""The task file: what a person writes to say which examples, how they become prompts, how answers are scored."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from strop.errors import TaskError
from strop.tasks.chat import OWN_ARGUMENTS, ChatArgument
from strop.tasks.keys import instead_of, key_in
from strop.tasks.labels import Labels
from strop.tasks.patterns import check_pattern
from strop.tasks.selection import rows_named
from strop.yaml_document import Fault, Form, read_mapping

FORM = Form("task file", "name and data", TaskError)
"""What a task file is, where one is read."""
FREQUENCY = pydantic.AliasChoices("frequency", "popularity")
Score = Literal["exact", "first_token", "choice", "generate", "perplexity", "label"]


class GenerateSettings(pydantic.BaseModel, extra="forbid", frozen=True):
    """How `score: generate` reads an answer out of generated text."""

    max_new_tokens: Annotated[int, pydantic.Field(gt=0)] = 32
    extract: str | None = None
    match: Literal["equal", "contains", "number", "number_or_option"] = "equal"
    gold: str | None = None
    stop: tuple[Annotated[str, pydantic.Field(min_length=1)], ...] = ()

    @pydantic.field_validator("extract")
    @classmethod
    def _is_a_pattern(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            check_pattern(pattern)
        return pattern

    @pydantic.field_validator("stop", mode="before")
    @classmethod
    def _is_a_list(cls, stop: Any) -> Any:
        if isinstance(stop, str):
            raise ValueError(f"give a list of texts, such as [{stop!r}]")
        return stop


class SplitSettings(pydantic.BaseModel, extra="forbid", frozen=True):
    """How examples are dealt out: by shares of one file, or as files that are split already.

    `held` stands for select and test together: select gets `held_select` of its rows, by default 1,000 where there are more
    than 5,000 and half of them otherwise, and test the others, dealt by the seed (GLUE's protocol in Wu, Arora et al.,
    ReFT, arXiv 2404.03592, appendix C).
    """

    train: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.0
    select: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.2
    test: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.8
    seed: Annotated[int, pydantic.Field(ge=0)] = 0
    files: dict[Literal["train", "select", "test", "held"], str] | None = None
    held_select: Annotated[int, pydantic.Field(gt=0)] | None = None
    overlap: Literal["refuse", "drop"] = "refuse"

    @pydantic.model_validator(mode="after")
    def _adds_up(self) -> "SplitSettings":
        if self.held_select is not None and "held" not in (self.files or {}):
            raise ValueError("held_select goes with a file called held, which select and test share")
        if self.files is not None:
            missing = {"select", "test"} - set(self.files)
            if "held" in self.files:
                if len(missing) < 2:
                    raise ValueError("splits.files names either held, which select and test share, or these two")
            elif missing:
                raise ValueError(f"splits.files lacks {' and '.join(sorted(missing))}: both select and test are needed")
        elif self.overlap != "refuse":
            raise ValueError(f"overlap: {self.overlap} goes with files; shares of one source never overlap")
        elif self.train + self.select + self.test > 1 + 1e-9:
            raise ValueError(self._too_much())
        return self

    def _too_much(self) -> str:
        """Return that the shares are above 1, with those that nobody gave named as defaults."""
        shares = {name: getattr(self, name) for name in ("train", "select", "test")}
        parts = [f"{name} {share:g}" for name, share in shares.items() if share and name in self.model_fields_set]
        parts += [
            f"{name} {share:g} by default"
            for name, share in shares.items()
            if share and name not in self.model_fields_set
        ]
        return (
            f"the shares of splits add up to {sum(shares.values()):g}, which is above 1: {', '.join(parts)}; lower one"
        )


class ShotSettings(pydantic.BaseModel, extra="forbid", frozen=True):
    """How many rows of the train split are shown before each prompt, and by which seed they are drawn."""

    count: Annotated[int, pydantic.Field(gt=0)]
    seed: Annotated[int, pydantic.Field(ge=0)] = 0


class TaskFile(pydantic.BaseModel, extra="forbid", frozen=True):
    """A task file's content, checked."""

    name: Annotated[str, pydantic.Field(min_length=1, max_length=200)]
    data: str | None = None
    prompt: str = "{{ prompt }}"
    image: str | None = None
    """The column that holds an image, which a classifier looks at instead of reading a prompt."""
    answer: str = "{{ answer }}"
    after: str | None = None
    """Template of what stands behind the answer."""
    choices: tuple[str, ...] | str | None = None
    """Templates, or the column that holds a row's choices."""
    paraphrases: str | None = None
    counterfactual: str | None = None
    group: str | None = None
    category: str | None = None
    per_category: Annotated[int, pydantic.Field(gt=0)] | None = None
    frequency: Annotated[str | None, pydantic.Field(validation_alias=FREQUENCY)] = None
    """The column that says how often the training data held a row's fact; `popularity` is another name of the key."""
    pair: str | None = None
    labels: tuple[Annotated[str, pydantic.Field(strict=True)], ...] | Literal["number"] | None = None
    metric: Literal["accuracy", "f1", "matthews", "pearson", "spearman"] | None = None
    max_tokens: Annotated[int, pydantic.Field(gt=1)] | None = None
    score: Score = "exact"
    generate: GenerateSettings | None = None
    chat: bool | dict[str, ChatArgument] = False
    system: str | None = None
    splits: SplitSettings = SplitSettings()
    shots: ShotSettings | None = None
    where: str | None = None
    skip: tuple[int, ...] | dict[str, tuple[str, ...]] | None = None
    """Rows by their number, counted from 1, or by what they have in some columns."""

    @pydantic.field_validator("name")
    @classmethod
    def _is_one_line(cls, name: str) -> str:
        if not name.isprintable() or not name.strip():
            raise ValueError("a name is one line of text that can be printed")
        return name

    @pydantic.field_validator("choices", mode="before")
    @classmethod
    def _are_choices(cls, choices: Any) -> Any:
        if choices is None or isinstance(choices, (list, tuple)):
            return choices
        if not isinstance(choices, str) or not choices.strip() or "{" in choices:
            raise ValueError(
                "write a list of templates, or the bare name of a column that holds a list, such as options"
            )
        return choices

    @pydantic.field_validator("skip", mode="before")
    @classmethod
    def _names_rows(cls, skip: Any) -> Any:
        return None if skip is None else rows_named(skip)

    @pydantic.field_validator("chat", mode="before")
    @classmethod
    def _is_a_chat(cls, chat: Any) -> Any:
        if isinstance(chat, bool):
            return chat
        if not isinstance(chat, dict) or not chat:
            raise ValueError(
                "write true, or arguments of the tokenizer's chat template such as {enable_thinking: false}"
            )
        for name, value in chat.items():
            if not isinstance(name, str) or not name.isidentifier():
                raise ValueError(f"{name!r} is not the name of an argument, such as enable_thinking")
            if name in OWN_ARGUMENTS:
                raise ValueError(f"{name} is not yours to give, for Strop tells it every template; leave it out")
            if not isinstance(value, ChatArgument) or value != value:
                raise ValueError(f"{name} is a text, a number, true, false or null, not {type(value).__name__}")
        return chat

    @pydantic.model_validator(mode="after")
    def _belongs_together(self) -> "TaskFile":
        if (self.data is None) == (self.splits.files is None):
            raise ValueError("either data names one source, or splits.files names one for each split; not both")
        if self.score == "choice" and self.choices is None:
            raise ValueError("score: choice needs choices, a list of templates")
        if self.choices is not None and self.score not in ("choice", "first_token"):
            raise ValueError(f"choices go with score: choice or first_token, not with score: {self.score}")
        if isinstance(self.choices, tuple) and len(self.choices) < 2:
            raise ValueError("choices needs two templates or more")
        if self.generate is not None and self.score != "generate":
            raise ValueError(f"generate settings go with score: generate, not with score: {self.score}")
        if self.system is not None and not self.chat:
            raise ValueError("system goes with chat: true, for only a chat has a system message")
        if self.score == "label" and self.labels is None:
            raise ValueError("score: label needs labels, a list of names or the word number")
        for name in ("labels", "pair", "metric", "max_tokens", "image"):
            if getattr(self, name) is not None and self.score != "label":
                raise ValueError(f"{name} goes with score: label, not with score: {self.score}")
        self._refuse_text_beside_image()
        if self.after is not None and self.score not in ("exact", "first_token", "choice"):
            raise ValueError(f"after goes with score: exact, first_token or choice, not with score: {self.score}")
        if self.shots is not None and self.score in ("perplexity", "label"):
            raise ValueError(f"shots go with answers that are written, not with score: {self.score}; leave them out")
        if self.pair is not None and self.chat:
            raise ValueError("a chat has one text; write both into prompt and leave out pair")
        if self.per_category is not None and self.category is None:
            raise ValueError("per_category needs category, the column that says of which kind a row is")
        if self.per_category is not None and self.data is None:
            raise ValueError("per_category goes with data, one source; files that are split already are used whole")
        if isinstance(self.skip, tuple) and self.data is None:
            raise ValueError(
                "skip: row numbers go with data, one source; name rows by a column, as in skip: {id: [a17]}"
            )
        try:
            self.label_settings()
        except TaskError as error:
            raise ValueError(str(error).removesuffix(".")) from None
        return self

    def _refuse_text_beside_image(self) -> None:
        """Raise ValueError if a classifier of images is to read something as well."""
        texts = ("prompt", "pair", "chat", "system", "max_tokens", "paraphrases", "counterfactual")
        beside = [name for name in texts if name in self.model_fields_set and getattr(self, name) not in (None, False)]
        if self.image is not None and beside:
            raise ValueError(
                f"{beside[0]} is text, and what a classifier of images looks at is image alone; leave it out"
            )

    def label_settings(self) -> Labels | None:
        """Return what a classifier is to say, and what it is judged by; None for a language model's task."""
        if self.labels is None:
            return None
        names = () if self.labels == "number" else self.labels
        return Labels(names, self.metric or ("accuracy" if names else "pearson"), self.max_tokens)


def read_task_file(path: Path) -> TaskFile:
    """Read and check a task file.

    Raises:
        TaskError: there is no such file, it is not YAML, or a key is missing, unknown or of the wrong kind.
    """
    content = read_mapping(path, FORM)
    return checked_task_file(content, shown=f"The task file {path}")


def checked_task_file(content: Mapping[str, Any], *, shown: str) -> TaskFile:
    """Check what a task file says, or a mapping in the place of one.

    Args:
        content: keys and their values.
        shown: what to call it in an error.

    Raises:
        TaskError: a key is missing, unknown or of the wrong kind.
    """
    try:
        return TaskFile.model_validate(content)
    except pydantic.ValidationError as error:
        raise TaskError(f"{shown}{_said(Fault.first_of(error), content)}.") from None


def _said(fault: Fault, content: Mapping[str, Any]) -> str:
    """Return what is wrong with a key, as the rest of a sentence that began with the file."""
    path, where = fault.keys, fault.where
    if not fault.unknown:
        return f"{where}: {fault.said}"
    keys_of = {
        "generate": GenerateSettings.model_fields,
        "splits": SplitSettings.model_fields,
        "shots": ShotSettings.model_fields,
    }
    if len(path) > 1:
        inner = keys_of.get(path[0], ())
        meant = key_in(path[0], path[-1], inner)
        hint = f"{meant}; " if meant else ""
        return f"{where}: there is no such key; {hint}{path[0]}: has {', '.join(inner)}"
    known = list(TaskFile.model_fields)
    meant = instead_of(path[0], content.get(path[0]), known)
    if meant is not None:
        return f"{where}: there is no such key; {meant}"
    return f"{where}: there is no such key; a task file has {', '.join(known)}"
