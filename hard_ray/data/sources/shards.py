"""Shards: files of many images below one folder, and the split of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hard_ray.config.data import ParquetData, WebDatasetData
from hard_ray.data.account import Account
from hard_ray.data.index import Rows
from hard_ray.data.layout import TEMPORARY, TEMPORARY_SUFFIXES, suffix_of
from hard_ray.data.listing import Listed, all_below, each_once, list_files
from hard_ray.data.remote_folders import ShardFile, folder_of, is_remote, list_root
from hard_ray.data.sources.shard_names import name_shards
from hard_ray.data.split_names import Choice, choose_splits
from hard_ray.errors import DataError
from hard_ray.storage.cache import ObjectCache

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".parquet.gz", ".parquet.zst")


@dataclass(frozen=True, slots=True)
class Shards:
    """The files of a sharded source."""

    files: tuple[ShardFile, ...]
    splits: Mapping[str, list[int]]
    """The numbers of the files in each split; empty if the files are one pool."""
    account: Account = field(default_factory=Account)
    """The files are entered; the finder enters their rows or members."""


def find_shards(config: ParquetData | WebDatasetData, suffix: str, cache: ObjectCache) -> Shards:
    """The files with a suffix below the source's folder, and the split of each, by its path.

    Raises DataError if there is none, the split of one cannot be told, or one is in two splits by a link.
    """
    root = list_root(config.place)
    account = Account()
    found = list_files(root, account.files, lambda path, _: _why_no_shard(path, suffix), [suffix])
    if not found:
        raise DataError(
            f"data.path {root}: holds no {suffix} file{account.files.seen}; set data.path to the folder of the shards, "
            "or data.kind to what the folder holds"
        )
    found.sort(key=lambda listed: Path(listed.path))
    paths = all_below(found, root)
    names, kinds = name_shards(config, paths, where=f"data.path {root}")
    choice = choose_splits(config, kinds, where=f"data.path {root}")
    account.notes += choice.notes
    name_of = dict(zip((listed.path for listed in found), names, strict=True))
    if not choice.splits:
        account.notes += [] if choice.notes else [f"no name of the {len(found)} files says a split: they are one pool"]
        once = each_once(found, lambda _: "the pool", account.files)
        account.files.used = len(once)
        return Shards(tuple(_file(listed, cache) for listed in once), {}, account)
    return _chosen(
        each_once(found, lambda path: f"the split {name_of[path]!r}", account.files), name_of, choice, account, cache
    )


def _chosen(
    found: Sequence[Listed], name_of: Mapping[str, str], choice: Choice, account: Account, cache: ObjectCache
) -> Shards:
    """The files of the chosen splits, one split after the other."""
    files: list[ShardFile] = []
    numbers: dict[str, list[int]] = {}
    for split, name in choice.splits.items():
        own = [_file(listed, cache) for listed in found if name_of[listed.path] == name]
        numbers[split] = list(range(len(files), len(files) + len(own)))
        files += own
        account.origins[split] = f"{len(own):,} {'file' if len(own) == 1 else 'files'} named {name!r}, first {own[0]}"
    for listed in found:
        if name_of[listed.path] in choice.unused:
            account.files.leave_out(choice.unused[name_of[listed.path]], listed.path)
    account.files.used = len(files)
    return Shards(tuple(files), numbers, account)


def _file(listed: Listed, cache: ObjectCache) -> ShardFile:
    folder = folder_of(listed.path) if is_remote(listed.path) else None
    return Path(listed.path) if folder is None else folder.shard(listed.path, cache)


def _why_no_shard(path: str, suffix: str) -> str:
    """The reason why a file is no shard; raises DataError for a compressed one, which is not left out in silence."""
    name = Path(path).name.lower()
    if name.endswith(suffix):
        return ""
    if name.endswith(COMPRESSED):
        raise DataError(
            f"{path}: is compressed, and images are read from the middle of {suffix} files; unpack it "
            f"(`gunzip`, `unzstd`, ...) so that its name ends in {suffix}, or move it out of data.path"
        )
    return TEMPORARY if suffix_of(name) in TEMPORARY_SUFFIXES else f"no {suffix} file"


def rows_of_splits(splits_of_files: Mapping[str, list[int]], file_of_row: NDArray[np.integer[Any]]) -> dict[str, Rows]:
    """The rows of each split, from the file of each row."""
    return {split: np.flatnonzero(np.isin(file_of_row, numbers)) for split, numbers in splits_of_files.items()}
