"""What a task file calls things, and what other tools and people call them."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from strop.errors import quoted

OTHER_NAMES = {
    "prompt": "question input instruction query context text source problem sentence premise user doc_to_text",
    "image": "images img picture pixels photo image_column pixel_values",
    "answer": "output target label completion response gold solution reference assistant doc_to_target",
    "choices": "options candidates endings alternatives doc_to_choice",
    "data": "file path dataset dataset_path data_file data_files rows examples",
    "score": "scorer scoring metrics output_type type",
    "group": "groups group_by cluster",
    "category": "categories subset kind",
    "frequency": "popularity frequencies occurrences pageviews",
    "shots": "fewshot few_shot num_fewshot num_shots",
    "where": "filter condition only keep",
    "skip": "drop exclude ignore remove",
    "splits": "split shares",
    "splits.train": "training",
    "splits.select": "validation valid val dev development eval",
    "splits.test": "testing held_out holdout",
    "name": "task title id",
    "system": "system_prompt system_message",
    "chat": "chat_template apply_chat_template",
    "generate": "generation generation_kwargs",
    "generate.max_new_tokens": "max_new_tokens max_gen_toks max_tokens max_length",
    "generate.extract": "extract regex pattern",
    "generate.stop": "stop until stop_strings",
    "generate.match": "match",
    "generate.gold": "gold_answer",
}
"""By key of a task file; the first names of a column are what prompts and answers are mostly called."""
_KEY_OF = {other: key for key, others in OTHER_NAMES.items() for other in others.split()}
TEMPLATES = ("prompt", "answer", "choices")


def instead_of(key: str, value: Any, known: Iterable[str]) -> str | None:
    """Return what to write in the place of a key that a task file does not have, as part of a sentence; None for no idea.

    Args:
        key: as it was written.
        value: that was given to it.
        known: the keys that are there.

    >>> instead_of("question", "{{ q }}", ["prompt", "answer"])
    'write prompt: "{{ q }}"'
    >>> instead_of("promt", "{{ q }}", ["prompt", "answer"])
    'write prompt'
    """
    own = _KEY_OF.get(key.lower())
    if own is None:
        near = difflib.get_close_matches(key.lower(), list(known), n=1, cutoff=0.75)
        return f"write {near[0]}" if near else None
    if own not in TEMPLATES[:2]:
        return f"write {own}"
    if isinstance(value, str) and "{{" in value and len(value) <= 60 and value.isprintable():
        return f'write {own}: "{value}"'
    column = value if isinstance(value, str) and value.isidentifier() else key
    return f'write {own}: "{{{{ {column} }}}}"'


def key_in(outer: str, key: str, known: Iterable[str]) -> str | None:
    """Return what to write in the place of a key inside another one, as part of a sentence; None for no idea.

    Args:
        outer: the key it stands in.
        key: as it was written.
        known: the keys that may stand there.

    >>> key_in("splits", "validation", ["train", "select", "test"])
    'write select'
    """
    known = list(known)
    named = next((own for own in known if key.lower() in OTHER_NAMES.get(f"{outer}.{own}", "").split()), None)
    near = [named] if named else difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.75)
    return f"write {near[0]}" if near else None


def column_instead_of(name: str, row: Mapping[str, Any]) -> str | None:
    """Return the column of a row that is probably meant where another is named; None for no idea.

    >>> column_instead_of("prompt", {"question": "1 + 1 =", "target": "2"})
    'question'
    """
    columns = [column for column in row if isinstance(column, str) and column.isidentifier()]
    near = difflib.get_close_matches(name, columns, n=1, cutoff=0.75)
    if near:
        return near[0]
    for key in TEMPLATES:
        alike = [key, *OTHER_NAMES[key].split()]
        if name.lower() in alike:
            return next((column for other in alike for column in columns if column.lower() == other), None)
    return None


def field_of(row: Mapping[str, Any], path: str) -> Any:
    """Return what a row holds under a column's name, or under a path into one, such as `meta.id`.

    Args:
        row: as it was read.
        path: a column, whatever its name, or names with full stops between them.

    Raises:
        LookupError: there is none.

    >>> field_of({"meta": {"id": 7}, "a.b": 1}, "meta.id"), field_of({"a.b": 1}, "a.b")
    (7, 1)
    """
    if path in row:
        return row[path]
    found: Any = row
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise LookupError(quoted(path))
        found = found[part]
    return found
