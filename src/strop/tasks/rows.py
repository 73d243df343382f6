"""Rows of a data source: a file, a data set of the hub, or rows that are given as Python objects."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from strop.errors import TaskError, quoted, reason_in, shortened
from strop.tasks.hub import HUB, rows_of_hub
from strop.tasks.tables import rows_of_dataset, rows_of_parquet
from strop.tasks.text_files import READERS, decoded
from strop.tasks.values import NotTextError, whole_text

if TYPE_CHECKING:
    import datasets

Row = Mapping[str, Any]
Rows = Union[Sequence[Row], "datasets.Dataset"]
PARQUET = ".parquet"
DATA_ENDINGS = (*sorted(READERS), PARQUET)


def read_rows(source: str, *, relative_to: Path) -> list[Row]:
    """Read all rows of a source.

    Args:
        source: a path ending in .jsonl, .json, .csv, .tsv or .parquet, or `hf://owner/name[/folder][:config][#split]`,
            where the name may also be a local folder, or one in `$STROP_DATA`, and the split a slice such as
            `train[:70%]`, or the name of a file in a local folder without its ending; without a split, all splits are
            read one after the other.
        relative_to: the folder a relative path starts from.

    Raises:
        TaskError: the source is not there, is empty, or a row in it cannot be read.
    """
    if source.startswith(HUB):
        rows, shown = rows_of_hub(source, relative_to), source
    else:
        path = _file(source, relative_to)
        shown = str(path)
        ending = path.suffix.lower()
        rows = rows_of_parquet(path) if ending == PARQUET else READERS[ending](decoded(path), shown)
    if not rows:
        raise TaskError(f"The data source {shown} holds no rows; put at least one example for each split in it.")
    return rows


def given_rows(rows: Any, *, shown: str) -> list[Row]:
    """Return rows that were given as Python objects: a list of mappings, or a `datasets.Dataset`.

    Args:
        rows: given.
        shown: what to call them in an error.

    Raises:
        TaskError: they are neither, there are none, or one of them is no mapping from names.
    """
    if is_dataset(rows):
        found = rows_of_dataset(rows)
    elif isinstance(rows, Sequence) and not isinstance(rows, (str, bytes, bytearray)):
        found = list(rows)
    else:
        hint = ", such as df.to_dict('records')" if hasattr(rows, "to_dict") else ""
        raise TaskError(
            f"{shown} is of type {type(rows).__name__}; give a list of dicts, a datasets.Dataset or a path{hint}."
        )
    for number, row in enumerate(found, start=1):
        if not isinstance(row, Mapping):
            raise TaskError(f"{shown}, row {number} is of type {type(row).__name__}, not a dict with named columns.")
        odd = next((name for name in row if not isinstance(name, str)), None)
        if odd is not None:
            raise TaskError(f"{shown}, row {number}: a column is named by a text, not by {quoted(str(odd))}.")
    if not found:
        raise TaskError(f"{shown} holds no rows; put at least one example for each split in it.")
    return found


def is_dataset(value: object) -> bool:
    """Return whether a value is a `datasets.Dataset`, without importing that library."""
    datasets = sys.modules.get("datasets")
    return datasets is not None and isinstance(value, datasets.Dataset)


def _file(source: str, relative_to: Path) -> Path:
    """Return the path of a data file that is there."""
    try:
        path = relative_to / Path(whole_text(source)).expanduser()
        known = path.suffix.lower() in DATA_ENDINGS
        found, folder = path.is_file(), path.is_dir()
    except (OSError, RuntimeError, NotTextError) as error:  # too long, or ~nobody, or no name at all
        why = getattr(error, "strerror", None) or reason_in(error)
        raise TaskError(f"The data file {quoted(source)} cannot be looked for: {why}.") from None
    if folder:
        raise TaskError(f"The data file {path} is a folder; name a file in it, or write hf://{shortened(source)}.")
    if not known:
        endings = ", ".join(sorted(DATA_ENDINGS))
        raise TaskError(f"The data file {path} is none of {endings}; convert it to one of these.")
    if not found:
        raise TaskError(f"There is no data file {path}; data: is relative to the task file.")
    return path
