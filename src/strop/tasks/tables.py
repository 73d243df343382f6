"""Rows of typed tables: Parquet files, and data sets of the `datasets` library."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from strop.errors import TaskError, reason_in

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
        table = pyarrow.parquet.read_table(path)
        twins = [name for name in table.column_names if table.column_names.count(name) > 1]
        if not twins:
            return list(_rows_of(table))
    except Exception as error:  # a damaged file raises whatever its reader meets
        raise TaskError(f"{path} cannot be read as Parquet: {reason_in(error)}.") from None
    raise TaskError(f"{path} has the column '{twins[0]}' twice; rename one.")


def rows_of_dataset(dataset: "datasets.Dataset") -> list[Mapping[str, Any]]:
    """Return the rows of a data set as they are stored: no picture or sound in it is decoded."""
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
