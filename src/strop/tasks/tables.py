"""Rows of typed tables: Parquet files, and data sets of the `datasets` library."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from strop.errors import TaskError, quoted, reason_in
from strop.tasks.text_files import first_twin

if TYPE_CHECKING:
    import datasets
    import pyarrow

BATCH_ROWS = 1000


def rows_of_parquet(path: Path) -> list[Mapping[str, Any]]:
    """Return the rows of a Parquet file.

    Raises:
        TaskError: it cannot be read as Parquet.
    """
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            twin = first_twin(file.schema_arrow.names)
            if twin is None:
                return list(_rows_of(file.read()))
    except Exception as error:  # a damaged file raises whatever its reader meets
        why = reason_in(error).rpartition("': ")[2]  # the path is in it
        raise TaskError(f"{path} cannot be read as Parquet: {why}.") from None
    raise TaskError(f"{path} has the column {quoted(twin, most=40)} twice; rename one.")


def rows_of_dataset(dataset: "datasets.Dataset") -> list[Mapping[str, Any]]:
    """Return the rows of a data set as they are stored: no picture or sound in it is decoded.

    Raises:
        TaskError: it has a transform, which makes other rows of them.
    """
    if dataset.format["type"] == "custom":
        raise TaskError(
            "This datasets.Dataset has a transform (with_transform, set_transform), and its rows are stored without it; give "
            "list(dataset), or use dataset.map."
        )
    batches = dataset.with_format("arrow").iter(batch_size=BATCH_ROWS)
    return [row for table in batches for row in _rows_of(table)]


def _rows_of(table: "pyarrow.Table") -> Iterator[dict[str, Any]]:
    import pyarrow

    narrow = [field.name for field in table.schema if field.type in (pyarrow.float16(), pyarrow.float32())]
    for row in table.to_pylist():
        for name in narrow:
            if row[name] is not None:  # the shortest spelling of a float of 32 bits, not that of its double
                row[name] = float(str(np.float32(row[name])))
        yield row
