"""Whole objects on a node's local disk, shared by its processes: fetched once, checked, and evicted by last use.

An entry is two files, `NAME` with the object's bytes and `NAME.json` with its size and SHA-256. The second is written
last and removed first, so an entry without it does not count. `NAME` is a digest of the address and of the version.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import logging
import os
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from hard_ray.errors import StorageError, readable
from hard_ray.files import cache_folder
from hard_ray.storage.address import Remote
from hard_ray.storage.objects import PART, RemoteFile

logger = logging.getLogger(__name__)

CONNECTIONS = 4
"""Parts of one object that are fetched at once."""

_verified: dict[Path, tuple[int, int]] = {}
"""Entries whose checksum this process has compared, with inode and time of the file that it saw."""

_said: set[str] = set()
"""What this process has already said about a cache that cannot be used."""


@dataclass(frozen=True, slots=True)
class ObjectCache:
    """A cache of objects in a folder; it may be pickled, and used by many processes and threads at once."""

    given: Path | None
    """The folder; None: that of the user on the node that uses it, which may be another than where it was made."""
    limit: int
    """Most bytes in the folder; 0: nothing is cached."""

    @property
    def folder(self) -> Path:
        """The folder on this node."""
        return (self.given or cache_folder() / "objects").expanduser()

    @classmethod
    def of_settings(cls, cache_dir: Path | None, cache_gb: float) -> ObjectCache:
        """The cache that `runtime.cache_dir` and `runtime.cache_gb` describe."""
        return cls(cache_dir, int(cache_gb * 1e9))

    def local_copy(self, remote: Remote, size: int, version: str) -> Path | None:
        """The object as a local file, fetched if it is not there yet; None: the disk has no room for it.

        Open the file at once: another process may evict it later, and only an open file stays readable then.

        Args:
            remote: The object.
            size: Its size in bytes, as listed.
            version: `Object.version` of the listing; another version is another entry.

        Raises:
            StorageError: the object cannot be read, or has another size.
        """
        if size > self.limit:
            return None
        entry = self._entry(remote, version)
        try:
            if self._is_whole(entry, size):
                _touch(entry)
                return entry
            entry.parent.mkdir(parents=True, exist_ok=True)
            with _locked(entry.parent / ".lock"):
                if not self._is_whole(entry, size):  # another process may have fetched it meanwhile
                    self._fetch(remote, size, entry)
                return entry
        except OSError as error:
            _say_once(
                f"the cache {self.folder} cannot be used ({error.strerror or readable(error)}); objects are read "
                "without it: make room there, or choose another runtime.cache_dir"
            )
            return None

    def open(self, remote: Remote, size: int, version: str) -> BinaryIO:
        """The object as an open file: the local copy, or the object itself where there is no room for a copy.

        Raises:
            StorageError: the object cannot be read, or has another size.
        """
        for _ in range(3):  # an entry may be evicted between the look and the opening
            path = self.local_copy(remote, size, version)
            if path is None:
                break
            with contextlib.suppress(FileNotFoundError):
                return path.open("rb")
        return cast(BinaryIO, io.BufferedReader(RemoteFile(remote, size=size), buffer_size=2**20))

    def _entry(self, remote: Remote, version: str) -> Path:
        name = hashlib.sha256(f"{remote}\n{version}".encode()).hexdigest()[:40]
        return self.folder / name[:2] / name

    def _is_whole(self, entry: Path, size: int) -> bool:
        """Whether an entry is there; its checksum is compared when this process sees the file for the first time."""
        try:
            facts = entry.stat()
            record = json.loads(_record(entry).read_bytes())
            if facts.st_size != size or record["size"] != size:
                return False
            seen = (facts.st_ino, facts.st_mtime_ns)
            if _verified.get(entry) != seen:
                with entry.open("rb") as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
                if digest != record["sha256"]:
                    _say_once(f"the cache's copy {entry} is damaged; it is fetched again")
                    return False
                _verified[entry] = seen
        except FileNotFoundError:
            return False
        except (ValueError, KeyError, TypeError):
            return False
        return True

    def _fetch(self, remote: Remote, size: int, entry: Path) -> None:
        """Fetch an object into its entry, whose folder is locked."""
        for left in entry.parent.glob(".*.tmp"):  # the lock is ours: these are of killed processes
            left.unlink(missing_ok=True)
        _record(entry).unlink(missing_ok=True)
        entry.unlink(missing_ok=True)
        temporary = entry.with_name(f".{entry.name}.{secrets.token_hex(4)}.tmp")
        try:
            with self._room_for(size), temporary.open("xb") as stream:
                stream.truncate(size)  # counts as taken from here on
            digest = download(remote, size, temporary)
            temporary.replace(entry)
            record = temporary.with_name(f"{temporary.name}.json.tmp")
            record.write_text(json.dumps({"url": remote.shown, "size": size, "sha256": digest}), encoding="utf-8")
            record.replace(_record(entry))
            facts = entry.stat()
            _verified[entry] = (facts.st_ino, facts.st_mtime_ns)
        except BaseException:
            for left in entry.parent.glob(f"{temporary.name}*"):
                with contextlib.suppress(OSError):
                    left.unlink()
            raise

    @contextlib.contextmanager
    def _room_for(self, size: int) -> Iterator[None]:
        """Hold the cache's lock with so many bytes free below the limit; the least recently used entries give way."""
        with _locked(self.folder / ".lock"):
            entries: list[tuple[float, int, Path]] = []
            taken = 0
            for folder in os.scandir(self.folder):
                if not folder.is_dir():
                    continue
                for file in os.scandir(folder.path):
                    with contextlib.suppress(FileNotFoundError):
                        facts = file.stat()
                        taken += facts.st_size
                        if file.name[0] != "." and not file.name.endswith(".json"):
                            entries.append((_last_use(Path(file.path), facts), facts.st_size, Path(file.path)))
            for _, freed, entry in sorted(entries):
                if taken + size <= self.limit:
                    break
                _record(entry).unlink(missing_ok=True)
                entry.unlink(missing_ok=True)
                _verified.pop(entry, None)
                taken -= freed
            yield


def _last_use(entry: Path, facts: os.stat_result) -> float:
    """When an entry was last used: the time of its record, since that of its bytes says when they were written."""
    try:
        return _record(entry).stat().st_mtime
    except FileNotFoundError:
        return facts.st_mtime


def _touch(entry: Path) -> None:
    with contextlib.suppress(OSError):
        os.utime(_record(entry))


def _record(entry: Path) -> Path:
    return entry.with_name(f"{entry.name}.json")


def download(remote: Remote, size: int, target: Path) -> str:
    """Write an object over a file, several parts at once, and return its SHA-256.

    Raises:
        StorageError: the object cannot be read, or has another size.
        OSError: the file cannot be written.
    """
    digest = hashlib.sha256()
    starts = range(0, size, PART)
    with contextlib.closing(RemoteFile(remote)) as source, target.open("r+b") as stream:
        if source.size != size:
            raise StorageError(
                f"{remote.shown} has {source.size:,} bytes, and {size:,} when it was listed: it was changed meanwhile; "
                "give the command again"
            )
        with ThreadPoolExecutor(min(CONNECTIONS, max(1, len(starts))), thread_name_prefix="fetch") as pool:
            ahead = [pool.submit(source.read_at, start, PART) for start in starts[:CONNECTIONS]]
            for number in range(len(starts)):
                content = ahead.pop(0).result()
                stream.write(content)
                digest.update(content)
                if number + CONNECTIONS < len(starts):
                    ahead.append(pool.submit(source.read_at, starts[number + CONNECTIONS], PART))
        stream.flush()
        os.fsync(stream.fileno())
    return digest.hexdigest()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _say_once(line: str) -> None:
    if line not in _said:
        _said.add(line)
        logger.warning("%s", line)
