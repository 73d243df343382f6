"""The next command to try, spelt so that it can be copied: quoted for a shell, with every option it needs."""

import itertools
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from strop.cli.console import print_line


def spelt(*words: object, options: Mapping[str, object] | None = None) -> str:
    """Return a command of Strop as a line for a shell.

    Args:
        words: what comes first, such as the command and its model.
        options: option → its value; one that is None or False is left out, one that is True stands alone, and one with
            several values is repeated.

    >>> spelt("eval", "my model", options={"--task": "t.yaml", "--shots": None, "--force": True, "--recipe": ["a", "b"]})
    "strop eval 'my model' --task t.yaml --force --recipe a --recipe b"
    """
    line = ["strop", *map(str, words)]
    for name, value in (options or {}).items():
        if value is None or value is False:
            continue
        if value is True:
            line.append(name)
            continue
        several = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
        line += [part for each in several for part in (name, str(each))]
    return shlex.join(line)


def free_name(folder: Path) -> Path:
    """Return a folder's name, or the first of name-2, name-3, … that is not taken.

    >>> free_name(Path("no such folder"))
    PosixPath('no such folder')
    """
    if not folder.exists():
        return folder
    return next(
        name for number in itertools.count(2) if not (name := folder.with_name(f"{folder.name}-{number}")).exists()
    )


def other_method(command: str, *, plan: Any, trainable: bool, classifier: bool) -> tuple[str, dict[str, object]] | None:
    """Return the command to try after one that gained nothing, with options of its own; never one that led here.

    search, prune → sharpen → train the spectrum, and train anything else → train the spectrum. A classifier trains, longer.
    improve → the preset that tries more.

    Args:
        command: that gained nothing.
        plan: the settings of that command.
        trainable: the task has train rows.
        classifier: it has labels.

    Returns:
        None where no method is left.

    >>> other_method("sharpen", plan=None, trainable=True, classifier=False)
    ('train', {'--method': 'spectrum'})
    """
    if command == "improve":
        return ("improve", {"--preset": plan.next_preset}) if plan.next_preset is not None else None
    if classifier:
        return "train", {"--epochs": 12}
    if command in ("search", "prune"):
        return "sharpen", {}
    if trainable and getattr(plan, "method", None) != "spectrum":
        return "train", {"--method": "spectrum"}
    return None


def print_next(*words: object, options: Mapping[str, object] | None = None) -> None:
    """Print the next command to try; see `spelt`.

    Args:
        words: what comes first, such as the command and its model.
        options: option → its value.
    """
    print_line(f"Next: {spelt(*words, options=options)}")
