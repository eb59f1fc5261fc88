"""Parquet: rows of encoded images and labels, indexed once so that any row can be read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hard_ray.config.data import ParquetData
from hard_ray.data.account import Account
from hard_ray.data.cells import bytes_of, check_image_type, check_label_type, path_of
from hard_ray.data.index import FoundImages
from hard_ray.data.labels import Labels
from hard_ray.data.readers import ParquetReader
from hard_ray.data.remote_folders import ShardFile
from hard_ray.data.safe_parquet import (
    SHORT_ROWS_AT_A_TIME,
    first_rows,
    group_rows,
    nulls,
    open_parquet,
    read_parquet,
)
from hard_ray.data.sources.parts import Part, Spread, read_parts
from hard_ray.data.sources.shards import find_shards, rows_of_splits
from hard_ray.errors import DataError
from hard_ray.storage.cache import ObjectCache


@dataclass(frozen=True, slots=True)
class _File:
    """What the index needs of a file."""

    path: ShardFile
    groups: NDArray[np.int64]
    """The rows of each row group."""
    labels: Labels
    kind: str
    """The kind of its labels."""
    names: tuple[str, ...] | None
    """Class names in its metadata."""
    empty: NDArray[np.int64]
    """Rows without an image."""

    @classmethod
    def of(cls, path: ShardFile, part: Part) -> _File:
        """From the part of the index that is kept."""
        names = part.facts["class_names"]
        columns = part.columns
        return cls(
            path,
            columns["groups"],
            part.labels,
            part.facts["kind"],
            None if names is None else tuple(names),
            columns["empty"],
        )


def find_parquet(config: ParquetData, spread: Spread, cache: ObjectCache) -> FoundImages:
    """Index row groups and labels; images stay in the files. Rows without an image are left out."""
    shards = find_shards(config, ".parquet", cache)
    settings = {"kind": config.kind, "image_column": config.image_column, "label_column": config.label_column}
    parts = read_parts(shards.files, partial(_read, config=config), settings, shards.account, spread)
    files = [_File.of(path, part) for path, part in zip(shards.files, parts, strict=True)]
    _refuse_differences(files, config)
    sizes = [len(file.labels) for file in files]
    kept = np.ones(sum(sizes), dtype=bool)
    for file, start in zip(files, np.cumsum([0, *sizes]), strict=False):
        kept[start + file.empty] = False
    _enter(shards.account, files, config)
    reader = ParquetReader.of(
        [file.path for file in files], [file.groups for file in files], config.image_column, kept=kept
    )
    labels = Labels.joined([file.labels for file in files])
    file_of_row = np.repeat(np.arange(len(files), dtype=np.int32), sizes)
    if not kept.all():
        labels, file_of_row = labels.take(kept), file_of_row[kept]
    splits = rows_of_splits(shards.splits, file_of_row)
    names = next((file.names for file in files if file.names), None)
    return FoundImages(
        reader,
        labels,
        str(config.path),
        names,
        splits,
        file_of_row,
        shards.account,
        label_from=f"column {config.label_column!r} (data.label_column)",
        has_labels=config.label_column is not None,
    )


def _read(path: ShardFile, config: ParquetData) -> Part:
    try:
        parquet = open_parquet(path)
        _require_columns(parquet, config, path)
        kind = _check_types(parquet, config, path)
        groups = np.array(group_rows(parquet), dtype=np.int64)
        columns = {"groups": groups, "empty": _empty_rows(parquet, config, path)}
        if config.label_column is None:
            return Part(Labels.none(int(groups.sum())), columns, {"kind": "none", "class_names": None})
        if kind == "names":
            parquet = open_parquet(path, repeated=config.label_column)
        table = read_parquet(parquet, [config.label_column], at_a_time=SHORT_ROWS_AT_A_TIME)
        labels = Labels.of_arrow(table.column(config.label_column))
        return Part(labels, columns, {"kind": kind, "class_names": _label_names(parquet, config)})
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read as Parquet ({error}); write the file again, or move it out of data.path"
        ) from None


def _require_columns(parquet: pq.ParquetFile, config: ParquetData, path: ShardFile) -> None:
    names = parquet.schema_arrow.names
    for key in ("image_column", "label_column"):
        column = getattr(config, key)
        if column is not None and column not in names:
            otherwise = ", or data.label_column=null if the images have no labels" if key == "label_column" else ""
            raise DataError(f"{path}: has no column {column!r}, but {', '.join(names)}; set data.{key}{otherwise}")


def _check_types(parquet: pq.ParquetFile, config: ParquetData, path: ShardFile) -> str:
    """Refuse columns that hold no images or labels; return the kind of labels."""
    schema = parquet.schema_arrow

    def example(column: str) -> Any:
        return next((cell for cell in first_rows(parquet, column) if cell is not None), None)

    kind: str | None = None
    for column, check in ((config.image_column, check_image_type), (config.label_column, check_label_type)):
        if column is not None:
            kind = check(schema.field(column).type, where=str(path), column=column, example=partial(example, column))
    return str(kind)


def _empty_rows(parquet: pq.ParquetFile, config: ParquetData, path: ShardFile) -> NDArray[np.int64]:
    """The rows whose cell is empty, as far as the file's statistics tell that there are any."""
    rows: list[int] = []
    start, column, kind = 0, config.image_column, parquet.schema_arrow.field(config.image_column).type
    for group, size in enumerate(group_rows(parquet)):
        if (count := nulls(parquet, column, group)) is None and not group and pa.types.is_struct(kind):
            _refuse_paths(first_rows(parquet, column), start, config, path)
        elif count:
            cells = read_parquet(parquet, [column], group).column(column).to_pylist()
            _refuse_paths(cells, start, config, path)
            rows += [start + row for row, cell in enumerate(cells) if bytes_of(cell) is None]
        start += size
    return np.array(rows, dtype=np.int64)


def _refuse_paths(cells: Sequence[Any], start: int, config: ParquetData, path: ShardFile) -> None:
    named = [(row, found) for row, cell in enumerate(cells) if (found := path_of(cell))]
    if named:
        row, found = named[0]
        raise DataError(
            f"{path}: data.image_column {config.image_column!r} holds paths without bytes in {len(named)} of the "
            f"{len(cells)} rows from {start} on, first {found!r} in row {start + row}; want the encoded images "
            "themselves. Write their bytes into the cells, or use the files: data.kind=image_folder if folders are "
            "their classes, or data.kind=huggingface data.name=FOLDER, which reads files below its folder"
        )


def _refuse_differences(files: Sequence[_File], config: ParquetData) -> None:
    """Refuse files whose labels mean different classes."""
    where = f"data.label_column {config.label_column!r}"
    for kind in ("numbers", "names"):
        first, other = (
            next((file for file in files if (file.kind == kind) is wanted), None) for wanted in (True, False)
        )
        if first and other and other.kind != "none":
            raise DataError(
                f"{where} holds {kind} in {first.path}, and {other.kind} in {other.path}; want the same in every file: "
                "write one of them anew"
            )
    for before, after in pairwise(file for file in files if file.names):
        if before.names != after.names:
            pairs = zip_longest(before.names or (), after.names or ())
            place, (one, other_one) = next(found for found in enumerate(pairs) if found[1][0] != found[1][1])
            raise DataError(
                f"{where}: class {place} is {one!r} in the metadata of {before.path}, and {other_one!r} in that of "
                f"{after.path}; want the same classes in every file: write one of them anew"
            )


def _enter(account: Account, files: Sequence[_File], config: ParquetData) -> None:
    """Enter the rows, those without an image, and labels that are numbers in words."""
    rows = sum(len(file.labels) for file in files)
    account.items.found[config.image_column] += rows
    for file in files:
        if len(file.empty):
            first = f"{file.path}, row {file.empty[0]}"
            account.items.leave_out("no image in the cell", first, count=len(file.empty))
    account.items.used = rows - sum(len(file.empty) for file in files)
    texts = set().union(*(file.labels.used_names for file in files))
    if len(texts) > 10 and all(re.fullmatch(r"\d+", text) for text in texts):
        first = ", ".join(repr(text) for text in sorted(texts)[:3])
        account.notes.append(
            f"data.label_column {config.label_column!r} holds numbers as text: they are names of classes, in the order "
            f"of text ({first}, ...); write integers to have their own order"
        )


def _label_names(parquet: pq.ParquetFile, config: ParquetData) -> tuple[str, ...] | None:
    """The class names that the `datasets` library writes into a file's metadata."""
    raw = (parquet.schema_arrow.metadata or {}).get(b"huggingface")
    if raw is None:
        return None
    try:
        feature = json.loads(raw)["info"]["features"][config.label_column]
        return tuple(str(name) for name in feature["names"])
    except (ValueError, KeyError, TypeError):
        return None
