"""Parquet: rows of encoded images and labels, indexed once so that any row can be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from hard_ray.config.data import ParquetData
from hard_ray.data.index import FoundImages
from hard_ray.data.readers import ParquetReader
from hard_ray.data.safe_parquet import group_rows, open_parquet, read_parquet
from hard_ray.data.sources.shards import find_shards, rows_of_splits
from hard_ray.errors import DataError


def find_parquet(config: ParquetData) -> FoundImages:
    """Index row groups and labels; images stay in the files."""
    shards = find_shards(config, ".parquet")
    files = shards.files
    groups, labels = [], []
    for path in files:
        try:
            parquet = open_parquet(path)
            _require_columns(parquet, config, path)
            labels.append(read_parquet(parquet, [config.label_column]).column(config.label_column).to_pylist())
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as Parquet ({error})") from None
        groups.append(group_rows(parquet))
    reader = ParquetReader.of(files, groups, config.image_column)
    file_of_row = np.repeat(np.arange(len(files)), [len(part) for part in labels])
    values = [value for part in labels for value in part]
    splits = rows_of_splits(shards.splits, file_of_row)
    names = _label_names(open_parquet(files[0]), config)
    return FoundImages(reader, values, str(config.path), names, splits, file_of_row.astype(np.int32), shards.account)


def _require_columns(parquet: pq.ParquetFile, config: ParquetData, path: Path) -> None:
    names = parquet.schema_arrow.names
    for key in ("image_column", "label_column"):
        column = getattr(config, key)
        if column not in names:
            raise DataError(f"{path}: has no column {column!r}, but {', '.join(names)}; set data.{key}")


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
