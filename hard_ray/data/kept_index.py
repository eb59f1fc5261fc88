"""The whole index of a large data set, kept between starts: arrays in files that are mapped, and checked by a listing.

An index is kept in the user's cache under the digest of what decides it: the settings, and the names, sizes, times and
numbers of all files below the data's folder. Whatever changes there gives another digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hard_ray.config.data import DataConfig, ImageFolderData, ImagesData, ParquetData, WebDatasetData
from hard_ray.data.account import Account
from hard_ray.data.index import ImageIndex, SplitName
from hard_ray.data.layout import IMAGE_SUFFIXES, suffix_among
from hard_ray.data.mapped import Mapped, Names, Opener, Place, map_array
from hard_ray.data.readers import FileReader, ObjectReader, ParquetReader, Reader, TarReader
from hard_ray.data.remote_folders import RemoteShard, ShardFile, is_remote, list_root, remote_entries
from hard_ray.files import cache_folder, read_json, replacing_folder, write_json
from hard_ray.storage.address import Remote
from hard_ray.storage.cache import ObjectCache

VERSION = 1
"""Of the format; an index of another version is made anew."""
LEAST_IMAGES = 10_000
"""Smaller indexes are made faster than they are kept."""
KEPT_DAYS = 60
"""An index, or a part of one, that nobody used for so many days is removed."""
FACTS = "index.json"

_LISTED = (ImageFolderData, ImagesData, ParquetData, WebDatasetData)
_VIEW = frozenset(
    {"img_size", "in_chans", "crop", "crop_padding", "scale", "ratio", "hflip", "augment", "interpolation", "crop_pct"}
    | {"mix", "unlabelled", "unlabelled_share", "shuffle_window"}
)
"""Keys that decide nothing about the index of the labelled images."""


def place_of(config: DataConfig) -> Place | None:
    """Where the index of these data is kept as they are now; None: it is none of those that are.

    The root is listed, for this and for the finders. Raises DataError if it does not exist.
    """
    if not isinstance(config, _LISTED):
        return None
    root = list_root(config.place)
    settings = config.model_dump(mode="json", exclude=set(_VIEW))
    settings |= {"path": root} if isinstance(config.path, Path) else {}
    said = json.dumps([VERSION, version("hardray"), settings], sort_keys=True)
    digest = hashlib.sha256(said.encode())
    if is_remote(root):
        _add_objects(digest, root)
    else:
        _add_listing(digest, root)
    return Place(str(kept_indexes() / digest.hexdigest()[:40]), json.dumps(settings, sort_keys=True), "")


def kept_indexes() -> Path:
    """The folder of indexes that are kept between starts."""
    return cache_folder() / "index" / "whole"


def kept_parts() -> Path:
    """The folder of the parts of indexes, one a shard, that are kept between starts."""
    return cache_folder() / "index" / "parts"


def _add_listing(digest: hashlib._Hash, root: str) -> None:
    """Add every entry below a folder: its name and number, and size and time where these may matter.

    An image is known by its name alone, so that one that is written anew, in place, has the same index.
    """
    waiting, seen = [root], set[tuple[int, int]]()
    is_image = suffix_among(IMAGE_SUFFIXES)
    while waiting:
        folder = waiting.pop()
        here = Path(folder).stat()
        if (here.st_dev, here.st_ino) in seen:
            continue
        seen.add((here.st_dev, here.st_ino))
        lines = [folder]
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:  # the finder says so
            continue
        for entry in found:
            if is_image(entry.name) and entry.is_file(follow_symlinks=False):
                lines.append(f"{entry.name}\0{entry.inode()}")
            else:
                lines.append(f"{entry.name}\0{_state(entry)}")
                with suppress(OSError):
                    if entry.is_dir():
                        waiting.append(entry.path)
        digest.update("\n".join(lines).encode("utf-8", "surrogateescape"))


def _add_objects(digest: hashlib._Hash, folder: str) -> None:
    """Add every object below a folder of a bucket that was listed."""
    for entry in sorted(remote_entries(folder), key=lambda entry: entry.name):
        if entry.is_folder:
            _add_objects(digest, entry.path)
        else:
            digest.update(f"{entry.path}\0{entry.version}\n".encode())


def _state(entry: os.DirEntry[str]) -> str:
    """What tells whether a file that is no plain image is as it was; for a folder, that it is one."""
    try:
        found = entry.stat()
    except OSError as error:
        return f"{error.errno}"
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    return f"{found.st_mode} {found.st_ino} {found.st_size} {found.st_mtime_ns} {entry.is_symlink()}"


def keep(index: ImageIndex, place: Place, opener: Opener, cache: ObjectCache) -> ImageIndex:
    """The same index with its arrays in files; as it is if it is small, or cannot be kept, which its account says."""
    if len(index.labels) < LEAST_IMAGES:
        return index
    facts, arrays = _taken_apart(index)
    folder = Path(place.folder)
    try:
        with replacing_folder(folder) as temporary:
            sizes: dict[str, int] = {}
            for name, array in arrays.items():
                path = temporary / f"{name}.npy"
                np.save(path, array, allow_pickle=False)
                sizes[name] = path.stat().st_size
            write_json(temporary / FACTS, {**facts, "settings": place.settings, "sizes": sizes})
        _remove_unused()
    except OSError as error:
        if not folder.is_dir():  # else another process has kept the same
            index.account.said.append(f"not kept for the next start: {error.strerror}: {error.filename}")
            return index
    kept = load(place, opener, cache)
    if kept is None:
        return index
    kept.account.said.extend(index.account.said)
    return kept


def load(place: Place, opener: Opener, cache: ObjectCache) -> ImageIndex | None:
    """A kept index; None if there is none, or it is not whole."""
    folder = Path(place.folder)
    try:
        facts: dict[str, Any] = read_json(folder / FACTS)
        if any((folder / f"{name}.npy").stat().st_size != size for name, size in facts["sizes"].items()):
            return None
        known = Place(place.folder, facts["settings"], facts["fingerprint"])
        arrays = {name: map_array(known, name, opener) for name in facts["sizes"]}
        os.utime(folder)
        return _put_together(facts, arrays, cache)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _taken_apart(index: ImageIndex) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """An index as plain values and arrays by name."""
    arrays: dict[str, NDArray[Any]] = {f"split.{name}": rows for name, rows in index.splits.items()}
    arrays["labels"] = index.labels
    if index.shard is not None:
        arrays["shard"] = index.shard
    reader: dict[str, Any] = {"kind": type(index.reader).__name__}
    match index.reader:
        case FileReader(root, paths):
            reader["root"] = str(root)
            arrays |= {"ends": paths.ends, "text": paths.text}
        case ObjectReader(remote, paths, sizes, versions):
            reader["root"] = str(remote)
            arrays |= {"ends": paths.ends, "text": paths.text, "sizes": sizes}
            arrays |= {"versions.ends": versions.ends, "versions.text": versions.text}
        case ParquetReader(files, group_file, group_index, group_start, column, kept):
            reader |= {"files": list(map(_said, files)), "column": column}
            arrays |= {"group_file": group_file, "group_index": group_index, "group_start": group_start}
            arrays |= {} if kept is None else {"kept": kept}
        case TarReader(files, file, offset, size):
            reader["files"] = list(map(_said, files))
            arrays |= {"file": file, "offset": offset, "size": size}
    facts = {
        "reader": reader,
        "classes": index.classes,
        "splits": list(index.splits),
        "account": index.account.to_json(),
        "has_labels": index.has_labels,
        "fingerprint": index.fingerprint(),
    }
    return facts, arrays


def _said(file: ShardFile) -> Any:
    return str(file) if isinstance(file, Path) else [str(file.remote), file.size, file.version]


def _file(said: Any, cache: ObjectCache) -> ShardFile:
    return Path(said) if isinstance(said, str) else RemoteShard(Remote.parse(said[0]), said[1], said[2], cache)


def _put_together(facts: dict[str, Any], arrays: dict[str, Mapped], cache: ObjectCache) -> ImageIndex:
    splits: list[SplitName] = facts["splits"]
    return ImageIndex(
        _reader(facts["reader"], arrays, cache),
        arrays["labels"],
        tuple(facts["classes"]),
        {name: arrays[f"split.{name}"] for name in splits},
        arrays.get("shard"),
        Account.from_json(facts["account"]),
        facts["has_labels"],
    )


def _reader(facts: dict[str, Any], arrays: dict[str, Mapped], cache: ObjectCache) -> Reader:
    match facts["kind"]:
        case "FileReader":
            return FileReader(Path(facts["root"]), Names(arrays["ends"], arrays["text"]))
        case "ObjectReader":
            paths = Names(arrays["ends"], arrays["text"])
            versions = Names(arrays["versions.ends"], arrays["versions.text"])
            return ObjectReader(Remote.parse(facts["root"]), paths, arrays["sizes"], versions, cache)
        case "ParquetReader":
            return ParquetReader(
                tuple(_file(each, cache) for each in facts["files"]),
                arrays["group_file"],
                arrays["group_index"],
                arrays["group_start"],
                facts["column"],
                arrays.get("kept"),
            )
        case "TarReader":
            files = tuple(_file(each, cache) for each in facts["files"])
            return TarReader(files, arrays["file"], arrays["offset"], arrays["size"])
        case kind:
            raise ValueError(f"no reader {kind!r}")


def _remove_unused() -> None:
    """Remove indexes and parts of some that were last used long ago."""
    oldest = time.time() - KEPT_DAYS * 86_400
    for path in (*kept_indexes().glob("*"), *kept_parts().glob("*/*")):
        with suppress(OSError):
            if path.stat().st_mtime < oldest:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
