"""Examples: a row's prompt, answer, choices and paraphrases, rendered from the task file's templates."""

import dataclasses
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jinja2
import jinja2.meta
import numpy as np
from numpy.typing import NDArray

from strop.errors import TaskError, listed, quoted, shortened
from strop.statistics.spread import OTHER
from strop.tasks.chat import Chat, in_order
from strop.tasks.extraction import extract, last_number, until_stop
from strop.tasks.labels import Labels
from strop.tasks.rows import Row
from strop.tasks.sandbox import BoundedEnvironment
from strop.tasks.task_file import GenerateSettings, TaskFile
from strop.tasks.template_values import NoValueError, RowView, teach
from strop.tasks.templates import rendered, template_of
from strop.tasks.values import NotTextError, kind_of, name_of, plain, whole_text

ACCENTS = dict.fromkeys(range(768, 880))
"""Combining marks that stand on letters; those of other scripts tell words apart."""
CALLED = {"choices": "a choice", "system": "the system message", "generate.gold": "the gold", "pair": "the second text"}
"""What a message calls that which a template of the task file gives, where it is not named as the key is."""


@dataclasses.dataclass(frozen=True)
class Shot:
    """A solved example that is shown before a prompt."""

    prompt: str
    answer: str
    end: str = "\n"
    """What parts it from what follows; a chat's turns need none."""


@dataclasses.dataclass(frozen=True)
class Example:
    """One prompt with its right answer."""

    prompt: str
    answer: str
    """The continuation, its leading space included."""
    choices: tuple[str, ...] | None = None
    """All continuations to choose from, the answer among them."""
    paraphrases: tuple[str, ...] = ()
    """Other prompts for the same answer."""
    group: str | None = None
    """Examples of one group never straddle two splits."""
    row: int = 0
    """Counted from 1 in its source."""
    columns: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False, compare=False)
    """The row as it was read."""
    counterfactual: str | None = None
    """Another prompt, of as many tokens as the row's own."""
    gold: str | None = None
    """What to find in generated text; None where only the answer says it."""
    chat: Chat | None = None
    """Where given, prompts are a user's messages, in the words of the tokenizer's chat template."""
    pair: str | None = None
    """A second text, which a classifier reads beside the prompt."""
    category: str | None = None
    """The kind of example it is, by which figures are shown; None where it has none."""
    shots: tuple[Shot, ...] = ()
    """What is shown before the prompt; no part of what the example is."""

    @property
    def identity(self) -> tuple[object, ...]:
        """What makes two examples the same: all that is asked, in whatever order its choices stand, and the answer."""
        system = None if self.chat is None else self.chat.system
        choices = None if self.choices is None else tuple(sorted(self.choices))
        return (system, self.prompt, self.pair, choices, self.answer)


def group_key(group: str) -> str:
    """Return what a group is compared by: its name without accents, case and repeated spaces.

    >>> group_key("Reykjavík") == group_key(" REYKJAVIK")
    True
    """
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", group).casefold()).translate(ACCENTS)
    return " ".join(plain.split())


def group_indices(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Number the groups of examples, (examples,); an example without one is a group of its own."""
    numbers: dict[object, int] = {}
    keys = (index if example.group is None else group_key(example.group) for index, example in enumerate(examples))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def categories_of(examples: Sequence[Example]) -> tuple[str, ...] | None:
    """Return the category of each example, `other` where it has none; None where no example has one."""
    if all(example.category is None for example in examples):
        return None
    return tuple(OTHER if example.category is None else example.category for example in examples)


def gold_of(example: Example, settings: GenerateSettings, *, where: str) -> str:
    """Return what a generated answer is compared with: the example's gold, or what is extracted from its answer.

    Args:
        example: with a right answer.
        settings: how answers are read.
        where: what to call it in an error.

    Raises:
        TaskError: nothing is found in the answer, or no number where numbers are compared.
    """
    if example.gold is not None:
        gold, source = example.gold.strip(), "gold"
    else:
        found = extract(until_stop(example.answer, settings), settings)
        if found is None:
            raise TaskError(
                f"{where}: the pattern in generate.extract finds nothing in the answer {quoted(example.answer)}; "
                "correct it, or give a template in generate.gold."
            )
        gold, source = found.strip(), "gold answer"
    if not gold:
        raise TaskError(f"{where}: the {source} is empty; fill its column or drop the row.")
    if settings.match == "number" and last_number(gold) is None:
        raise TaskError(
            f"{where}: match: number needs a number in the {source}, not {quoted(gold)}; correct or drop the row."
        )
    return gold


def render_examples(task_file: TaskFile, rows: Sequence[Row], *, source: str) -> list[Example]:
    """Turn rows into examples.

    Args:
        task_file: the templates.
        rows: from one source.
        source: what to call it in an error.

    Raises:
        TaskError: a row lacks a column or a value, has one that is no text, renders to an empty answer or counterfactual, its
            answer is not among its choices or labels, or holds nothing that generated text could be compared with; the
            message names the source, the row, the column and the remedy.
    """
    renderer = _Renderer(task_file, rows)
    return [renderer.example(row, number, source) for number, row in enumerate(rows, start=1)]


class _Renderer:
    def __init__(self, task_file: TaskFile, rows: Sequence[Row]) -> None:
        self.task_file = task_file
        self.columns: set[str] = set()
        self.environment = BoundedEnvironment()
        teach(self.environment)
        self.prompt = self._compile("prompt", task_file.prompt)
        self.answer = self._compile("answer", task_file.answer)
        self.choices = [self._compile("choices", choice) for choice in task_file.choices or ()]
        swapped = task_file.counterfactual
        self.counterfactual = None if swapped is None else self._compile("counterfactual", swapped)
        self.system = None if task_file.system is None else self._compile("system", task_file.system)
        self.generate = (task_file.generate or GenerateSettings()) if task_file.score == "generate" else None
        gold = None if self.generate is None else self.generate.gold
        self.gold = None if gold is None else self._compile("generate.gold", gold)
        self.pair = None if task_file.pair is None else self._compile("pair", task_file.pair)
        self.labels = task_file.label_settings()
        self.view = RowView(rows, self.columns)

    def _compile(self, key: str, text: str) -> jinja2.Template:
        what = f"The template in {key}: of task {shortened(self.task_file.name)}"
        template = template_of(text, self.environment, what=what)
        self.columns |= jinja2.meta.find_undeclared_variables(self.environment.parse(text))
        return template

    def example(self, row: Row, number: int, source: str) -> Example:
        where = f"{source}, row {number}"
        prompt = self._render(self.prompt, row, where, "prompt")
        answer = self._render(self.answer, row, where, "answer")
        if not answer.strip():
            raise TaskError(f"{where}: the answer is empty; fill its column or drop the row.")
        pair = None if self.pair is None else self._render(self.pair, row, where, "pair")
        if not prompt and not pair and self.task_file.score != "perplexity":
            raise TaskError(f"{where}: the prompt is empty; fill its column or drop the row.")
        if self.labels is not None:
            answer = answer.strip()
            self._check_label(self.labels, answer, where)
        choices = tuple(self._render(choice, row, where, "choices") for choice in self.choices) or None
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
        )
        if self.generate is None:
            return example
        return dataclasses.replace(example, gold=gold_of(example, self.generate, where=where))

    def _check_label(self, labels: Labels, answer: str, where: str) -> None:
        try:
            labels.target(answer)
        except TaskError as error:
            raise TaskError(f"{where}: {error}") from None

    def _check_choices(self, choices: tuple[str, ...], answer: str, where: str) -> None:
        if any(not choice.strip() for choice in choices):
            raise TaskError(f"{where}: a choice is empty; fill its column or drop the row.")
        if len(set(choices)) < len(choices):
            raise TaskError(f"{where}: two choices are the same text; make them distinct or drop the row.")
        if answer not in choices:
            raise TaskError(
                f"{where}: the answer {quoted(answer)} is not one of the choices [{listed(map(quoted, choices))}]; "
                "spell both alike, the leading space included."
            )

    def _render(self, template: jinja2.Template, row: Row, where: str, key: str) -> str:
        number = key == "answer" and self.labels is not None and not self.labels.names  # which is read as one again
        try:
            columns = self.view.of(row, any_number=number)
            return whole_text(rendered(template, columns, what=f"{where}: the template in {key}:"))
        except TaskError:
            raise
        except NoValueError as error:
            column = shortened(error.message or "")
            raise TaskError(
                f"{where}: {CALLED.get(key, f'the {key}')} has no value, for column '{column}' is empty; fill it, drop the row, "
                f"or say what stands for it: {{{{ {column}|default('…') }}}}."
            ) from None
        except NotTextError as error:
            raise TaskError(f"{where}: the template in {key}: {error}.") from None
        except jinja2.UndefinedError as error:
            raise TaskError(
                f"{where}: the template in {key}: needs a column that is not there ({shortened(error.message or '')}); the row "
                f"has {listed(row) or 'none'}."
            ) from None
        except RecursionError:
            raise TaskError(f"{where}: the template in {key}: a value nests too deeply; flatten it.") from None
        except Exception as error:  # a template may call anything Jinja offers, on any value
            reason = shortened(str(error), most=120).rstrip(".")
            raise TaskError(f"{where}: the template in {key}: failed: {reason}.") from None

    def _column(self, row: Row, column: str, where: str, key: str) -> Any:
        if column not in row:
            raise TaskError(
                f"{where}: {key}: names the column '{shortened(column)}', which is not there; the row has {listed(row) or 'none'}."
            )
        return row[column]

    def _paraphrases(self, row: Row, where: str) -> tuple[str, ...]:
        if self.task_file.paraphrases is None:
            return ()
        column = self.task_file.paraphrases
        found = plain(self._column(row, column, where, "paraphrases"))
        if not isinstance(found, (list, tuple)):
            raise TaskError(f"{where}: column '{column}' is not a list of prompts; it holds {kind_of(found)}.")
        return tuple(
            self._paraphrase(plain(entry), f"{where}: column '{column}'", n) for n, entry in enumerate(found, 1)
        )

    def _paraphrase(self, entry: Any, where: str, number: int) -> str:
        if not isinstance(entry, str) or not entry:
            raise TaskError(f"{where} is not a list of prompts; its entry {number} is {kind_of(entry or None)}.")
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

    def _name(self, row: Row, where: str, key: Literal["group", "category"]) -> str | None:
        column = getattr(self.task_file, key)
        if column is None:
            return None
        value = self._column(row, column, where, key)
        try:
            return name_of(value)
        except NotTextError as error:
            raise TaskError(
                f"{where}: {key}: column '{shortened(column)}': {error}; correct it or drop the row."
            ) from None
