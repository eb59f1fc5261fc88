"""Shards: files of many images below one folder, and the split of each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hard_ray.config.data import ParquetData, WebDatasetData
from hard_ray.data.account import Account
from hard_ray.data.index import Rows
from hard_ray.data.layout import find_splits, require_folder
from hard_ray.errors import DataError


@dataclass(frozen=True, slots=True)
class Shards:
    """The files of a sharded source."""

    files: tuple[Path, ...]
    splits: Mapping[str, list[int]]
    """The numbers of the files in each split; empty if the files are one pool."""
    account: Account = field(default_factory=Account)
    """The files are entered; the finder enters their rows or members."""


def find_shards(config: ParquetData | WebDatasetData, suffix: str) -> Shards:
    """The files with a suffix below the source's folder, and the split of each."""
    root = require_folder(config.path)
    found = sorted(path for path in root.rglob(f"*{suffix}") if path.is_file())
    if not found:
        raise DataError(f"data.path {root}: holds no {suffix} file")
    by_name: dict[str, list[Path]] = {}
    for path in found:
        by_name.setdefault(_split_of(path, root), []).append(path)
    names = find_splits(config, sorted(by_name))
    if not names:
        return Shards(tuple(found), {})
    files: list[Path] = []
    numbers: dict[str, list[int]] = {}
    for split, name in names.items():
        numbers[split] = list(range(len(files), len(files) + len(by_name[name])))
        files += by_name[name]
    return Shards(tuple(files), numbers)


def rows_of_splits(splits_of_files: Mapping[str, list[int]], file_of_row: NDArray[np.integer[Any]]) -> dict[str, Rows]:
    """The rows of each split, from the file of each row."""
    return {split: np.flatnonzero(np.isin(file_of_row, numbers)) for split, numbers in splits_of_files.items()}


def _split_of(path: Path, root: Path) -> str:
    """The split that a file's path names: `train` for `root/train/x.tar` and `root/[data/]train-00000-of-00010.tar`."""
    folder = path.parent.relative_to(root).parts
    by_folder = folder[0] if folder and folder[0] != "data" else ""
    return by_folder or re.split(r"[-_.]", path.name, maxsplit=1)[0]
