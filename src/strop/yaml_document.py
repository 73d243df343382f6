"""One mapping out of a YAML file a person wrote: no key twice, no more than it seems to hold; and what is wrong with a key."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from strop.errors import StropError, quoted, reason_in, shortened

if TYPE_CHECKING:
    import pydantic

MOST_CHARACTERS = 300_000
MOST_VALUES = 5_000
"""All that aliases repeat counted as often as they do."""
DEEPEST = 20
LONGEST_NUMBER = 100
TEXT = "tag:yaml.org,2002:str"


@dataclasses.dataclass(frozen=True)
class Form:
    """A form of file that people write."""

    name: str
    """Such as task file."""
    needs: str
    """The keys it cannot do without, as a part of a sentence."""
    error: type[StropError]
    """What is raised where a file is not of that form."""

    def refuse(self, path: Path, said: str) -> StropError:
        """Return the error for a file of this form: what it is, which one, and the rest of the sentence."""
        return self.error(f"The {self.name} {path}{said}.")


def read_mapping(path: Path, form: Form) -> dict[Any, Any]:
    """Read a YAML file that holds a mapping.

    Args:
        path: of the file.
        form: what it is to be.

    Raises:
        StropError: of the form's kind: it cannot be read, is not YAML, names a key twice, holds no mapping, or too much.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(MOST_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise form.refuse(path, f" cannot be read: {reason}") from None
    if len(text) > MOST_CHARACTERS:
        raise form.refuse(path, f" has more than {MOST_CHARACTERS:,} characters; put what is long into the rows")
    try:
        content = _Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        raise form.refuse(path, f" is not YAML{_place(error)}: {_problem(error)}") from None
    except Exception as error:  # what YAML takes for a date or a number, Python may not
        raise form.refuse(path, f" is not YAML: {shortened(reason_in(error), most=120)}") from None
    if not isinstance(content, dict):
        raise form.refuse(path, f" is empty or not a mapping; it needs at least {form.needs}")
    return content


@dataclasses.dataclass(frozen=True)
class Fault:
    """The first thing that is wrong with what a file holds."""

    keys: tuple[str, ...]
    """Which key, from the outermost inwards; none where it is the whole."""
    unknown: bool
    """Whether there is no such key."""
    said: str
    """What is wrong with its value, as a part of a sentence."""

    @classmethod
    def first_of(cls, errors: "pydantic.ValidationError") -> "Fault":
        """Return the first of the faults that a check has found."""
        error = errors.errors()[0]
        keys = tuple(
            str(part) for part in error["loc"] if "[" not in str(part)
        )  # without the kinds of a value it tried
        said, given = error["msg"].removeprefix("Value error, "), error.get("input")
        plain = error["type"] not in ("missing", "value_error") and isinstance(given, (str, int, float, bool))
        return cls(
            keys,
            error["type"] == "extra_forbidden",
            f"{shortened(said, most=300)}{f', not {quoted(str(given))}' if plain else ''}",
        )

    @property
    def where(self) -> str:
        """The key, as the rest of a sentence that began with the file."""
        return f", key {shortened('.'.join(self.keys))}" if self.keys else ""


class _Loader(yaml.SafeLoader):
    """Reads plain values, and counts what they hold before it makes them."""

    composed = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return the next value, unless there were too many."""
        self.composed += 1
        if self.composed > MOST_VALUES:
            raise yaml.MarkedYAMLError(None, None, "it holds more than such a file does", self.get_mark())
        return super().compose_node(parent, index)

    def get_single_data(self) -> Any:
        """Return what the one document in the file holds; None where there is none."""
        node = self.get_single_node()
        if node is None:
            return None
        _count(node)
        return self.construct_document(node)

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:  # noqa: N803  # as PyYAML names it
        """Begin a list or mapping in brackets, unless it lies too deep."""
        self._stay_flat(self.flow_level)
        super().fetch_flow_collection_start(TokenClass)

    def add_indent(self, column: int) -> bool:
        """Begin a list or mapping by indentation, unless it lies too deep."""
        self._stay_flat(len(self.indents))
        return bool(super().add_indent(column))

    def _stay_flat(self, depth: int) -> None:
        if depth > DEEPEST:
            raise yaml.MarkedYAMLError(None, None, "it is nested deeper than such a file is", self.get_mark())


def _count(node: yaml.Node) -> None:
    """Raise MarkedYAMLError where a document holds too much, or a key twice."""
    values = 0
    waiting = [(node, 1)]
    while waiting:
        own, depth = waiting.pop()
        values += 1
        if values > MOST_VALUES or depth > DEEPEST:
            raise yaml.MarkedYAMLError(None, None, "it holds more than such a file does", own.start_mark)
        if isinstance(own, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in own.value:
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    said = f"the key {shortened(key.value, most=40)} stands twice; keep one"
                    raise yaml.MarkedYAMLError(None, None, said, key.start_mark)
                seen.add(str(key.value))
                waiting += [(key, depth + 1), (value, depth + 1)]
        elif isinstance(own, yaml.ScalarNode) and own.tag != TEXT and len(own.value) > LONGEST_NUMBER:
            said = "a number or a date has too many characters; put it in quotes if it is text"
            raise yaml.MarkedYAMLError(None, None, said, own.start_mark)
        elif isinstance(own, yaml.SequenceNode):
            waiting += [(value, depth + 1) for value in own.value]


def _place(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"


def _problem(error: yaml.MarkedYAMLError) -> str:
    said = shortened(error.problem or error.context or "it does not parse", most=120)
    return f"{said}; indent by spaces, and quote text with a tab" if "'\\t'" in said else said
