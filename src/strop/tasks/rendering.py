"""From rows to examples: prompt, answer, choices and paraphrases, rendered from the task file's templates."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import jinja2
import jinja2.meta

from strop.errors import EndlessError, TaskError, listed, quoted, shortened
from strop.tasks.chat import Chat, in_order
from strop.tasks.examples import Example, gold_of
from strop.tasks.keys import column_instead_of, field_of
from strop.tasks.labels import Labels
from strop.tasks.pictures import Beside, Picture, picture_of
from strop.tasks.rows import Row
from strop.tasks.sandbox import BoundedEnvironment
from strop.tasks.selection import Skipped, no_column
from strop.tasks.task_file import GenerateSettings, TaskFile
from strop.tasks.template_values import NoValueError, RowView, teach
from strop.tasks.templates import Condition, rendered, template_of
from strop.tasks.text_files import DamagedRow
from strop.tasks.values import NotTextError, amount_of, kind_of, name_of, plain, whole_text

_Found = TypeVar("_Found")

CALLED = {
    "choices": "a choice",
    "system": "the system message",
    "after": "what stands after the answer",
    "generate.gold": "the gold",
    "pair": "the second text",
    "where": "the condition in where:",
}
"""What a message calls that which a template of the task file gives, where it is not named as the key is."""


@dataclasses.dataclass(frozen=True)
class BadRow:
    """A row that cannot become an example, and why."""

    source: str
    row: int
    """Counted from 1 in its source."""
    problem: str
    """A sentence that names column and remedy."""

    def __str__(self) -> str:
        """Return the sentence with the row's place before it."""
        return f"{self.source}, row {self.row}: {self.problem}"


@dataclasses.dataclass(frozen=True)
class RenderedRows:
    """What became of a source's rows."""

    examples: tuple[Example, ...]
    bad: tuple[BadRow, ...] = ()
    skipped: int = 0
    """Rows that the task file names in `skip`."""
    left_out: int = 0
    """Rows of which the condition in `where` is not true."""


def render_rows(
    task_file: TaskFile, rows: Sequence[Row], *, source: str, skipped: Skipped, beside: Beside
) -> RenderedRows:
    """Turn rows into examples, and collect those that cannot become one.

    A row is bad that could not be read, lacks a column or a value, has one that is no text, renders to an empty answer or
    counterfactual, whose answer is not among its choices or labels, that holds no image where one is wanted, or nothing that
    generated text could be compared with.

    Args:
        task_file: the templates.
        rows: from one source.
        source: what to call it in an error.
        skipped: remembers which rows were named in `skip`.
        beside: where the paths of images begin.

    Raises:
        TaskError: a template does not compile, or computes without end.
        UsageError: the rows hold images, and Pillow is not installed.
    """
    renderer = _Renderer(task_file, rows, beside)
    examples, bad, left_out, skips = [], [], 0, 0
    for number, row in enumerate(rows, start=1):
        where = f"{source}, row {number}"
        try:
            if skipped.has(row, number, where=where):
                skips += 1
            elif isinstance(row, DamagedRow):
                bad.append(BadRow(source, number, row.problem))
            elif not renderer.keeps(row, where):
                left_out += 1
            else:
                examples.append(renderer.example(row, number, source))
        except EndlessError:
            raise
        except TaskError as error:
            bad.append(BadRow(source, number, str(error).removeprefix(f"{where}: ")))
    return RenderedRows(tuple(examples), tuple(bad), skips, left_out)


class _Renderer:
    def __init__(self, task_file: TaskFile, rows: Sequence[Row], beside: Beside) -> None:
        self.task_file = task_file
        self.beside = beside
        self.columns: set[str] = set()
        self.environment = BoundedEnvironment()
        teach(self.environment)
        self.prompt = None if task_file.image is not None else self._compile("prompt", task_file.prompt)
        self.answer = self._compile("answer", task_file.answer)
        templates = task_file.choices if isinstance(task_file.choices, tuple) else ()
        self.choices = [self._compile("choices", choice) for choice in templates]
        self.after = None if task_file.after is None else self._compile("after", task_file.after)
        swapped = task_file.counterfactual
        self.counterfactual = None if swapped is None else self._compile("counterfactual", swapped)
        self.system = None if task_file.system is None else self._compile("system", task_file.system)
        self.generate = (task_file.generate or GenerateSettings()) if task_file.score == "generate" else None
        gold = None if self.generate is None else self.generate.gold
        self.gold = None if gold is None else self._compile("generate.gold", gold)
        self.pair = None if task_file.pair is None else self._compile("pair", task_file.pair)
        self.labels = task_file.label_settings()
        self.names = {
            key: self._compile(key, column)
            for key, column in (("group", task_file.group), ("category", task_file.category))
            if column is not None and "{{" in column
        }
        self.condition = self._condition(task_file.where)
        self.view = RowView(rows, self.columns)

    def _compile(self, key: str, text: str) -> jinja2.Template:
        what = f"The template in {key}: of task {shortened(self.task_file.name)}"
        template = template_of(text, self.environment, what=what)
        self.columns |= jinja2.meta.find_undeclared_variables(self.environment.parse(text))
        return template

    def _condition(self, text: str | None) -> Condition | None:
        if text is None:
            return None
        what = f"The condition in where: of task {shortened(self.task_file.name)}"
        condition = Condition.read(text, self.environment, what=what)
        self.columns |= condition.names
        return condition

    def keeps(self, row: Row, where: str) -> bool:
        """Say whether the condition in `where` is true of a row."""
        condition = self.condition
        if condition is None:
            return True
        what = f"{where}: the condition in where:"
        return self._on(row, lambda columns: condition.holds(columns, what=what), what, CALLED["where"], where)

    def example(self, row: Row, number: int, source: str) -> Example:
        where = f"{source}, row {number}"
        image = self._image(row, where)
        prompt = self._render(self.prompt, row, where, "prompt") if self.prompt is not None else ""
        answer = self._render(self.answer, row, where, "answer")
        if not answer.strip():
            raise TaskError(f"{where}: the answer is empty; fill its column or drop the row.")
        pair = None if self.pair is None else self._render(self.pair, row, where, "pair")
        if image is not None:
            prompt = image.name
        elif not prompt and not pair and self.task_file.score != "perplexity":
            raise TaskError(f"{where}: the prompt is empty; fill its column or drop the row.")
        if self.labels is not None:
            answer = answer.strip()
            self._check_label(self.labels, answer, where)
        choices = self._choices(row, where, answer)
        if choices is not None:
            self._check_choices(choices, answer, where)
        example = Example(
            prompt,
            answer,
            choices,
            self._paraphrases(row, where),
            self._name(row, where, "group"),
            number,
            row,
            self._counterfactual(row, where),
            None if self.gold is None else self._render(self.gold, row, where, "generate.gold"),
            self._chat(row, where),
            pair,
            self._name(row, where, "category"),
            after="" if self.after is None else self._render(self.after, row, where, "after"),
            image=image,
            frequency=self._frequency(row, where),
        )
        if self.generate is None:
            return example
        return dataclasses.replace(example, gold=gold_of(example, self.generate, where=where))

    def _image(self, row: Row, where: str) -> Picture | None:
        column = self.task_file.image
        if column is None:
            return None
        value = self._column(row, column, where, "image")
        try:
            return picture_of(value, self.beside)
        except TaskError as error:
            raise TaskError(f"{where}: column '{shortened(column)}': {error}") from None

    def _check_label(self, labels: Labels, answer: str, where: str) -> None:
        try:
            labels.target(answer)
        except TaskError as error:
            raise TaskError(f"{where}: {error}") from None

    def _check_choices(self, choices: tuple[str, ...], answer: str, where: str) -> None:
        if any(not choice.strip() for choice in choices):
            raise TaskError(f"{where}: a choice is empty; fill its column or drop the row.")
        if len(choices) < 2:
            raise TaskError(
                f"{where}: a row needs two choices or more, and has {len(choices)}; add some or drop the row."
            )
        if len(set(choices)) < len(choices):
            raise TaskError(f"{where}: two choices are the same text; make them distinct or drop the row.")
        if answer not in choices:
            raise TaskError(
                f"{where}: the answer {quoted(answer)} is not one of the choices [{listed(map(quoted, choices))}]; "
                "spell both alike, the leading space included."
            )

    def _choices(self, row: Row, where: str, answer: str) -> tuple[str, ...] | None:
        column = self.task_file.choices
        if not isinstance(column, str):
            return tuple(self._render(choice, row, where, "choices") for choice in self.choices) or None
        space = answer.removesuffix(answer.lstrip())  # a column holds the words, and the answer says how they follow
        return tuple(space + text.lstrip() for text in self._texts(row, column, where, "choices"))

    def _render(self, template: jinja2.Template, row: Row, where: str, key: str) -> str:
        number = key == "answer" and self.labels is not None and not self.labels.names  # which is read as one again
        what = f"{where}: the template in {key}:"

        def render(columns: Mapping[str, Any]) -> str:
            return whole_text(rendered(template, columns, what=what))

        return self._on(row, render, what, CALLED.get(key, f"the {key}"), where, any_number=number)

    def _on(
        self,
        row: Row,
        ask: Callable[[Mapping[str, Any]], _Found],
        what: str,
        called: str,
        where: str,
        *,
        any_number: bool = False,
    ) -> _Found:
        """Return what a template or condition finds in a row, or say why it finds nothing."""
        try:
            return ask(self.view.of(row, any_number=any_number))
        except TaskError:
            raise
        except NoValueError as error:
            column = shortened(error.message or "")
            instead = f"{column}|default('…')"  # a condition has no braces
            raise TaskError(
                f"{where}: {called} has no value, for column '{column}' is empty; fill it, drop the row, or say what stands for "
                f"it: {instead if called == CALLED['where'] else f'{{{{ {instead} }}}}'}."
            ) from None
        except NotTextError as error:
            raise TaskError(f"{what} {error}.") from None
        except jinja2.UndefinedError as error:
            message = error.message or ""
            missing = message.removesuffix(" is undefined").strip("'")
            meant = column_instead_of(missing, row) if message.endswith(" is undefined") else None
            hint = "" if meant is None else f"; write {{{{ {shortened(meant)} }}}}"
            raise TaskError(
                f"{what} needs a column that is not there ({shortened(message)}); the row has {listed(row) or 'none'}{hint}."
            ) from None
        except RecursionError:
            raise TaskError(f"{what} a value nests too deeply; flatten it.") from None
        except Exception as error:  # a template may call anything Jinja offers, on any value
            raise TaskError(f"{what} failed: {shortened(str(error), most=120).rstrip('.')}.") from None

    def _column(self, row: Row, column: str, where: str, key: str) -> Any:
        try:
            return field_of(row, column)
        except LookupError:
            raise TaskError(f"{where}: {key}: {no_column(column, row)}.") from None

    def _paraphrases(self, row: Row, where: str) -> tuple[str, ...]:
        column = self.task_file.paraphrases
        return () if column is None else self._texts(row, column, where, "paraphrases")

    def _texts(self, row: Row, column: str, where: str, key: str) -> tuple[str, ...]:
        """Return the texts that a column holds a list of."""
        texts = "prompts" if key == "paraphrases" else key
        found = plain(self._column(row, column, where, key))
        if not isinstance(found, (list, tuple)):
            raise TaskError(f"{where}: column '{column}' is not a list of {texts}; it holds {kind_of(found)}.")
        return tuple(
            self._text(plain(entry), f"{where}: column '{column}'", n, texts) for n, entry in enumerate(found, 1)
        )

    def _text(self, entry: Any, where: str, number: int, texts: str) -> str:
        if not isinstance(entry, str) or not entry:
            raise TaskError(f"{where} is not a list of {texts}; its entry {number} is {kind_of(entry or None)}.")
        try:
            return whole_text(entry)
        except NotTextError as error:
            raise TaskError(f"{where}, entry {number}: {error}.") from None

    def _counterfactual(self, row: Row, where: str) -> str | None:
        if self.counterfactual is None:
            return None
        text = self._render(self.counterfactual, row, where, "counterfactual")
        if not text:
            raise TaskError(f"{where}: the counterfactual is empty; fill its column or drop the row.")
        return text

    def _chat(self, row: Row, where: str) -> Chat | None:
        if not self.task_file.chat:
            return None
        told = self.task_file.chat if isinstance(self.task_file.chat, dict) else {}
        return Chat(None if self.system is None else self._render(self.system, row, where, "system"), in_order(told))

    def _frequency(self, row: Row, where: str) -> float | None:
        column = self.task_file.frequency
        if column is None:
            return None
        try:
            return amount_of(self._column(row, column, where, "frequency"))
        except NotTextError as error:
            raise TaskError(
                f"{where}: frequency: column '{shortened(column)}': {error}; correct it or drop the row."
            ) from None

    def _name(self, row: Row, where: str, key: Literal["group", "category"]) -> str | None:
        column = getattr(self.task_file, key)
        if column is None:
            return None
        template = self.names.get(key)
        value = self._column(row, column, where, key) if template is None else self._render(template, row, where, key)
        try:
            return name_of(value)
        except NotTextError as error:
            raise TaskError(
                f"{where}: {key}: column '{shortened(column)}': {error}; correct it or drop the row."
            ) from None
