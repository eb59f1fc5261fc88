"""Reading Parquet files without trusting their metadata: a few rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hard_ray.data.remote_folders import ShardFile, size_of
from hard_ray.errors import readable

ROWS_AT_A_TIME = 64
"""Rows decoded between two checks of their size: a few bytes of a file can encode any number of rows."""
SHORT_ROWS_AT_A_TIME = 4096
"""The same for numbers, and for text that is read as a dictionary."""
LARGEST_READ = 4 * 2**30
"""Largest size in memory of one read, in bytes: a row group's images, or all labels of a file."""

_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError)


def open_parquet(path: ShardFile, *, repeated: str | None = None) -> pq.ParquetFile:
    """Open a file; the text of column `repeated` is read as a dictionary, each value once.

    Raises OSError unless its schema is readable, and its row groups possible in a file of its size.
    """
    try:
        source = path if isinstance(path, Path) else path.in_place()  # only the parts that are asked for
        parquet = pq.ParquetFile(source, read_dictionary=[repeated] if repeated is not None else None)
        rows, size = group_rows(parquet), size_of(path)
    except _ERRORS as error:
        raise OSError(readable(error)) from None
    if min(rows, default=0) < 0 or sum(rows) > size:
        raise OSError(f"says that its row groups have {', '.join(map(str, rows[:5]))} rows, in {size:,} bytes")
    return parquet


def group_rows(parquet: pq.ParquetFile) -> list[int]:
    """The number of rows of each row group, according to the file."""
    return [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]


def read_parquet(
    parquet: pq.ParquetFile, columns: Sequence[str], group: int | None = None, *, at_a_time: int = ROWS_AT_A_TIME
) -> pa.Table:
    """Read columns of one row group, or of the whole file.

    Raises OSError if a column is missing or duplicate, cannot be read, or is larger than `LARGEST_READ`.
    """
    names = parquet.schema_arrow.names
    if wrong := [column for column in columns if names.count(column) != 1]:
        raise OSError(f"has {names.count(wrong[0])} columns {wrong[0]!r} among {', '.join(names)}; want one")
    groups = list(range(parquet.num_row_groups)) if group is None else [group]
    batches, size = [], 0
    try:
        for batch in parquet.iter_batches(at_a_time, groups, list(columns), use_threads=False):
            batches.append(batch)
            size += batch.nbytes
            if size > LARGEST_READ:
                raise OSError(f"more than {LARGEST_READ:,} bytes at once; write the file with smaller row groups")
        table = pa.Table.from_batches(batches) if batches else parquet.schema_arrow.empty_table().select(columns)
    except _ERRORS as error:
        raise OSError(readable(error)) from None
    if len(table) != (rows := sum(parquet.metadata.row_group(number).num_rows for number in groups)):
        raise OSError(f"has {len(table)} rows, and {rows} according to its metadata")
    return table


def first_rows(parquet: pq.ParquetFile, column: str) -> list[Any]:
    """The first few cells of a column; raises OSError if they cannot be read."""
    try:
        batch = next(parquet.iter_batches(ROWS_AT_A_TIME, columns=[column], use_threads=False), None)
        return [] if batch is None else batch.column(column).to_pylist()
    except _ERRORS as error:
        raise OSError(readable(error)) from None


def nulls(parquet: pq.ParquetFile, column: str, group: int) -> int | None:
    """How many cells of a column are empty in a row group, or the bytes in them; None if the file does not tell."""
    found = parquet.metadata.row_group(group)
    for number in range(found.num_columns):
        part = found.column(number)
        if part.path_in_schema in (column, f"{column}.bytes"):
            statistics = part.statistics
            return statistics.null_count if statistics is not None and statistics.has_null_count else None
    return None
