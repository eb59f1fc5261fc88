"""Folders of a bucket as the listing of a local one sees them: made of one listing of all objects below a root."""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from hard_ray.data.layout import require_folder
from hard_ray.errors import DataError
from hard_ray.storage import objects
from hard_ray.storage.address import Remote
from hard_ray.storage.cache import ObjectCache
from hard_ray.storage.objects import RemoteFile


@dataclass(frozen=True, slots=True)
class RemoteShard:
    """A file of many images in a bucket, which is read like a local one, from a copy in the node's cache."""

    remote: Remote
    size: int
    """In bytes."""
    version: str
    """Of the listing; another version is another copy."""
    cache: ObjectCache

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.remote.name

    def __str__(self) -> str:
        return self.remote.shown

    def open(self, mode: str = "rb") -> BinaryIO:
        """The whole object as a file, fetched into the cache where there is room; StorageError: it cannot be read."""
        assert mode == "rb"
        return self.cache.open(self.remote, self.size, self.version)

    def in_place(self) -> RemoteFile:
        """The object as a file of which only what is asked for is fetched."""
        return RemoteFile(self.remote, size=self.size)

    def local_copy(self) -> Path | None:
        """The object as a local file in the cache; None: there is no room for it."""
        return self.cache.local_copy(self.remote, self.size, self.version)


ShardFile = Path | RemoteShard


def size_of(file: ShardFile) -> int:
    """The size of a file in bytes."""
    return file.stat().st_size if isinstance(file, Path) else file.size


@dataclass(frozen=True, slots=True)
class RemoteEntry:
    """An object, or a folder of objects, with the methods of `os.DirEntry` that listings use."""

    name: str
    path: str
    size: int = 0
    version: str = ""
    is_folder: bool = False

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether objects lie below it."""
        del follow_symlinks  # there are no links
        return self.is_folder

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is an object."""
        del follow_symlinks
        return not self.is_folder

    def is_symlink(self) -> bool:
        """False: buckets have no links."""
        return False

    def inode(self) -> int:
        """0: an object has no number; its address tells it from others."""
        return 0

    def stat(self) -> os.stat_result:
        """Mode and size alone."""
        mode = modes.S_IFDIR if self.is_folder else modes.S_IFREG
        return os.stat_result((mode | 0o444, 0, 0, 1, 0, 0, self.size, 0, 0, 0))


@dataclass(slots=True)
class RemoteFolder:
    """All objects below an address, as one listing found them."""

    remote: Remote
    folders: dict[str, dict[str, RemoteEntry]] = field(default_factory=dict)
    """By path, as messages show it, and name."""

    @classmethod
    def of(cls, remote: Remote) -> RemoteFolder:
        """List an address; raises StorageError if it cannot be listed, or nothing is there."""
        found = cls(remote, {remote.shown.rstrip("/"): {}})
        for each in objects.listing(remote):
            if each.key and not each.key.endswith("/"):  # consoles write empty objects for folders
                found._add(each)
        return found

    @property
    def root(self) -> str:
        """The address without its options."""
        return self.remote.shown.rstrip("/")

    def _add(self, each: objects.Object) -> None:
        folder, _, name = f"{self.root}/{each.key}".rpartition("/")
        self._folder(folder)[name] = RemoteEntry(name, f"{folder}/{name}", each.size, each.version)

    def _folder(self, path: str) -> dict[str, RemoteEntry]:
        if path not in self.folders:
            self.folders[path] = {}
            above, _, name = path.rpartition("/")
            self._folder(above)[name] = RemoteEntry(name, path, is_folder=True)
        return self.folders[path]

    def entry(self, path: str) -> RemoteEntry:
        """The object of a path; raises KeyError if there is none."""
        folder, _, name = path.rpartition("/")
        return self.folders[folder][name]

    def address(self, path: str) -> Remote:
        """The address of a path below the root."""
        return self.remote / path[len(self.root) + 1 :]

    def shard(self, path: str, cache: ObjectCache) -> RemoteShard:
        """The object of a path as a file."""
        found = self.entry(path)
        return RemoteShard(self.address(path), found.size, found.version, cache)


_listed: dict[str, RemoteFolder] = {}
"""The newest listing of each root of this process."""


def is_remote(path: str) -> bool:
    """Whether a path is that of a bucket."""
    return "://" in path[:12]


def list_root(path: Path | Remote) -> str:
    """The root folder of data; one of a bucket is listed anew.

    Raises DataError if it does not exist, is no folder, or cannot be listed.
    """
    if isinstance(path, Path):
        return str(require_folder(path))
    found = RemoteFolder.of(path)
    if not found.folders[found.root]:
        raise DataError(f"data.path {path.shown}: want a folder, this is an object; set data.path to what holds it")
    _listed[found.root] = found
    return found.root


def folder_of(path: str) -> RemoteFolder | None:
    """The listing that a path of a bucket belongs to; None: the path lies above or beside all roots."""
    return next(
        (found for root, found in _listed.items() if path == root or path.startswith(f"{root}/")),
        None,
    )


def remote_entries(path: str) -> Iterable[RemoteEntry]:
    """What lies directly in a folder of a bucket."""
    found = folder_of(path)
    return [] if found is None else found.folders.get(path, {}).values()


def head_of(path: str, size: int) -> bytes:
    """The first bytes of an object; raises StorageError if it cannot be read."""
    found = folder_of(path)
    assert found is not None
    return objects.read_range(found.address(path), 0, min(size, found.entry(path).size))


def files_below(path: str) -> list[str]:
    """The names of all objects below a folder."""
    names: list[str] = []
    for entry in remote_entries(path):
        names += files_below(entry.path) if entry.is_folder else [entry.path]
    return names
