"""Parquet and WebDataset: files of many images, indexed once so that any row can be read."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hard_ray.config.data import ParquetData, WebDatasetData
from hard_ray.data.index import FoundImages, Rows
from hard_ray.data.layout import IMAGE_SUFFIXES, find_splits, require_folder
from hard_ray.data.readers import ParquetReader, TarReader
from hard_ray.data.safe_parquet import group_rows, open_parquet, read_parquet
from hard_ray.errors import DataError


def find_parquet(config: ParquetData) -> FoundImages:
    """Index row groups and labels; images stay in the files."""
    files, splits_of_files = _shards(config, ".parquet")
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
    splits = _rows_of_splits(splits_of_files, file_of_row)
    names = _label_names(open_parquet(files[0]), config)
    return FoundImages(reader, values, str(config.path), names, splits, file_of_row.astype(np.int32))


def find_webdataset(config: WebDatasetData) -> FoundImages:
    """Index the members of every shard; images stay in the files."""
    files, splits_of_files = _shards(config, ".tar")
    file, offset, size, values = [], [], [], []
    for number, path in enumerate(files):
        for member, label in _samples(path, config):
            file.append(number)
            offset.append(member.offset_data)
            size.append(member.size)
            values.append(label)
    reader = TarReader(
        files, np.array(file, dtype=np.int32), np.array(offset, dtype=np.int64), np.array(size, dtype=np.int64)
    )
    splits = _rows_of_splits(splits_of_files, reader.file)
    return FoundImages(reader, values, str(config.path), splits=splits, shard=reader.file)


def _samples(path: Path, config: WebDatasetData) -> list[tuple[tarfile.TarInfo, int | str]]:
    """The image member and the label of each sample; the members that share a key are one sample."""
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, int | str] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                key, _, suffix = member.name.rpartition("/")[2].partition(".")
                key = f"{member.name.rpartition('/')[0]}/{key}"
                if not member.isfile():
                    continue
                if f".{suffix.lower()}" in IMAGE_SUFFIXES:
                    images[key] = member
                elif suffix == config.label_key:
                    stream = archive.extractfile(member)
                    text = stream.read(1024).decode("utf-8", "replace").strip() if stream else ""
                    labels[key] = int(text) if re.fullmatch(r"-?\d{1,9}", text) else text
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{path}: cannot be read as an uncompressed tar file ({error})") from None
    unlabelled = [key for key in images if key not in labels]
    if unlabelled:
        raise DataError(
            f"{path}: {len(unlabelled)} images have no member {unlabelled[0]!r}.{config.label_key}; "
            "set data.label_key to the label's extension"
        )
    return [(member, labels[key]) for key, member in images.items()]


def _shards(config: ParquetData | WebDatasetData, suffix: str) -> tuple[tuple[Path, ...], dict[str, list[int]]]:
    """All files, and the numbers of those in each split; no splits if the files are one pool."""
    root = require_folder(config.path)
    found = sorted(path for path in root.rglob(f"*{suffix}") if path.is_file())
    if not found:
        raise DataError(f"data.path {root}: holds no {suffix} file")
    by_name: dict[str, list[Path]] = {}
    for path in found:
        by_name.setdefault(_split_of(path, root), []).append(path)
    names = find_splits(config, sorted(by_name))
    if not names:
        return tuple(found), {}
    files: list[Path] = []
    numbers: dict[str, list[int]] = {}
    for split, name in names.items():
        numbers[split] = list(range(len(files), len(files) + len(by_name[name])))
        files += by_name[name]
    return tuple(files), numbers


def _split_of(path: Path, root: Path) -> str:
    """The split that a file's path names: `train` for `root/train/x.tar` and `root/[data/]train-00000-of-00010.tar`."""
    folder = path.parent.relative_to(root).parts
    by_folder = folder[0] if folder and folder[0] != "data" else ""
    return by_folder or re.split(r"[-_.]", path.name, maxsplit=1)[0]


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


def _rows_of_splits(splits_of_files: Mapping[str, list[int]], file_of_row: NDArray[np.integer[Any]]) -> dict[str, Rows]:
    return {split: np.flatnonzero(np.isin(file_of_row, numbers)) for split, numbers in splits_of_files.items()}
