"""One mapping out of a YAML file a person wrote: no key twice, no more than it seems to hold."""

from pathlib import Path
from typing import Any

import yaml

from strop.errors import TaskError, reason_in, shortened

MOST_CHARACTERS = 300_000
MOST_VALUES = 5_000
"""All that aliases repeat counted as often as they do."""
DEEPEST = 20


def read_mapping(path: Path) -> dict[Any, Any]:
    """Read a YAML file that holds a mapping.

    Args:
        path: of the file.

    Raises:
        TaskError: it cannot be read, is not YAML, names a key twice, holds no mapping, or more than a task file does.
    """
    what = f"The task file {path}"
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(MOST_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise TaskError(f"{what} cannot be read: {reason}.") from None
    if len(text) > MOST_CHARACTERS:
        raise TaskError(f"{what} has more than {MOST_CHARACTERS:,} characters; put what is long into the rows.")
    loader = _Loader(text)
    try:
        content = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        raise TaskError(f"{what} is not YAML{_place(error)}: {_problem(error)}.") from None
    except RecursionError:
        raise TaskError(f"{what} is nested too deeply; a task file is a mapping of a few keys.") from None
    except Exception as error:  # what YAML takes for a date or a number, Python may not
        raise TaskError(f"{what} is not YAML: {shortened(reason_in(error), most=120)}.") from None
    finally:
        loader.dispose()
    if not isinstance(content, dict):
        raise TaskError(f"{what} is empty or not a mapping; it needs at least name and data.")
    return content


class _Loader(yaml.SafeLoader):
    """Reads plain values, and counts what they hold before it makes them."""

    def get_single_data(self) -> Any:
        """Return what the one document in the file holds; None where there is none."""
        node = self.get_single_node()
        if node is None:
            return None
        _count(node)
        return self.construct_document(node)


def _count(node: yaml.Node) -> None:
    """Raise MarkedYAMLError where a document holds too much, or a key twice."""
    values = 0
    waiting = [(node, 1)]
    while waiting:
        own, depth = waiting.pop()
        values += 1
        if values > MOST_VALUES or depth > DEEPEST:
            raise yaml.MarkedYAMLError(None, None, "it holds more than a task file does", own.start_mark)
        if isinstance(own, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in own.value:
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    said = f"the key {shortened(key.value, most=40)} stands twice; keep one"
                    raise yaml.MarkedYAMLError(None, None, said, key.start_mark)
                seen.add(str(key.value))
                waiting += [(key, depth + 1), (value, depth + 1)]
        elif isinstance(own, yaml.SequenceNode):
            waiting += [(value, depth + 1) for value in own.value]


def _place(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"


def _problem(error: yaml.MarkedYAMLError) -> str:
    said = shortened(error.problem or error.context or "it does not parse", most=120)
    return f"{said}; indent by spaces, and quote text with a tab" if "'\\t'" in said else said
