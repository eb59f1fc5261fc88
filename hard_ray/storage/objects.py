"""Objects in buckets: listed, read, written and deleted, with retries; every error is one sentence.

Nobody else opens a remote file. A request that is throttled, reset or answered with a truncated body is made again,
with exponential back-off and jitter.
"""

from __future__ import annotations

import io
import random
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hard_ray.errors import MissingObjectError, StorageError
from hard_ray.storage.address import ALIASES, Remote
from hard_ray.storage.problems import is_missing, is_no_network, is_passing, problem
from hard_ray.storage.systems import file_system

if TYPE_CHECKING:
    from pyarrow import NativeFile
    from pyarrow.fs import FileSystem

Result = TypeVar("Result")

PART = 16 * 2**20
"""Bytes of one request, at most; a large object is read and written in parts."""

THREADS = 16
"""Requests under way at once in `read_many`: an object of a few kilobytes costs a round trip, whatever its size."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is made, and the pauses between two tries."""

    attempts: int = 8
    first_s: float = 0.2
    longest_s: float = 8.0
    unreachable: int = 4
    """Tries while the server cannot be reached at all."""

    def pause_s(self, tries: int) -> float:
        """Seconds after so many failed tries: exponential, with jitter so that workers do not come back together."""
        return random.uniform(0.5, 1.0) * min(self.longest_s, self.first_s * 2.0 ** (tries - 1))


RETRIES = Retries()


@dataclass(frozen=True, slots=True)
class Object:
    """An object as a listing knows it."""

    key: str
    """Its name relative to what was listed: `listed / key` is its address."""
    size: int
    """In bytes."""
    mtime: float | None
    """When it was last written, in seconds since 1970; S3 knows whole seconds."""
    etag: str | None = None
    """The server's mark of its content; listings of pyarrow's file systems have none, those of `hf://` do."""

    @property
    def version(self) -> str:
        """A text that changes when the object does, as far as a listing tells."""
        return f"{self.size}-{self.etag or self.mtime}"


def listing(remote: Remote) -> list[Object]:
    """All objects below an address, sorted by key; of the address of one object, that object, with an empty key.

    Raises:
        StorageError: the bucket cannot be listed; MissingObjectError: there is nothing of this name.
    """
    from pyarrow.fs import FileSelector

    def ask(system: FileSystem, path: str) -> list[Object]:
        found = system.get_file_info(FileSelector(path, recursive=True))
        etags = _etags(system, path)
        return [_object(info, info.path[len(path) :].strip("/"), etags) for info in found if info.is_file]

    try:
        objects = sorted(_asked(remote, ask), key=lambda one: one.key)
    except MissingObjectError:
        objects = []
    except StorageError:
        if remote.scheme != "file":
            raise
        objects = []  # a local file cannot be listed as a folder
    if objects or (one := stat(remote)) is None:
        if not objects:
            raise MissingObjectError(f"{remote.shown} does not exist or is empty; check the name")
        return objects
    return [one]


def stat(remote: Remote) -> Object | None:
    """What the server knows of one object, with an empty key; None: there is no object of this name."""

    def ask(system: FileSystem, path: str) -> Object | None:
        info = system.get_file_info(path)
        return _object(info, "", {}) if info.is_file else None

    return _asked(remote, ask)


def read(remote: Remote, *, size: int | None = None) -> bytes:
    """A whole object.

    Raises:
        StorageError: it cannot be read, or has another size than `size`.
        MissingObjectError: there is none of this name.
    """

    def ask(system: FileSystem, path: str) -> bytes:
        with system.open_input_file(path) as stream:
            there = stream.size()
            if size is not None and there != size:
                raise StorageError(
                    f"{remote.shown} has {there:,} bytes, and {size:,} were expected: it was changed meanwhile; "
                    "give the command again"
                )
            parts = [_part(stream, start, min(PART, there - start)) for start in range(0, there, PART)]
            return parts[0] if len(parts) == 1 else b"".join(parts)

    return _asked(remote, ask)


def read_range(remote: Remote, start: int, length: int) -> bytes:
    """Exactly `length` bytes from byte `start` on; StorageError: they cannot be read, or the object ends before."""
    return read_ranges(remote, [(start, length)])[0]


def read_ranges(remote: Remote, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Several (start, length) of one object, opened once; StorageError as in `read_range`."""

    def ask(system: FileSystem, path: str) -> list[bytes]:
        with system.open_input_file(path) as stream:
            return [_part(stream, start, length) for start, length in ranges]

    return _asked(remote, ask)


def read_many(remotes: Sequence[Remote], *, threads: int = THREADS) -> Iterator[bytes | StorageError]:
    """The contents of objects in the order given, `threads` requests at a time; an error stands in its object's place.

    At most four contents for each thread are in memory besides what the caller holds.
    """

    def one(remote: Remote) -> bytes | StorageError:
        try:
            return read(remote)
        except StorageError as error:
            return error

    if len(remotes) <= 1 or threads == 1:
        yield from map(one, remotes)
        return
    with ThreadPoolExecutor(min(threads, len(remotes)), thread_name_prefix="read") as pool:
        ahead = 4 * threads
        waiting = [pool.submit(one, remote) for remote in remotes[:ahead]]
        for number in range(len(remotes)):
            yield waiting[number].result()
            waiting[number] = None  # type: ignore[call-overload]  # frees the content
            if ahead + number < len(remotes):
                waiting.append(pool.submit(one, remotes[ahead + number]))


def write(remote: Remote, content: bytes) -> None:
    """Write an object; a reader sees the old content or the new. StorageError: it cannot be written."""
    _write(remote, lambda: io.BytesIO(content), len(content))


def write_file(remote: Remote, path: Path, *, size: int | None = None) -> None:
    """Write a local file, or its first `size` bytes, as an object; its name is taken only once all has arrived.

    Raises:
        StorageError: it cannot be written.
        OSError: the local file cannot be opened.
    """
    _write(remote, lambda: path.open("rb"), path.stat().st_size if size is None else size)


def delete(remote: Remote) -> None:
    """Remove an object; it is no error if there is none. StorageError: it cannot be removed."""

    def ask(system: FileSystem, path: str) -> None:
        try:
            system.delete_file(path)
        except OSError as error:
            if not is_missing(error):
                raise

    _asked(remote, ask, diagnose=False)


class RemoteFile(io.RawIOBase):
    """An object as a file that can be read at any place, for Parquet and tar; every read is a request, with retries.

    `read_at` may be called by several threads at once; the position of `read` belongs to one.
    """

    def __init__(self, remote: Remote, *, size: int | None = None) -> None:
        super().__init__()
        self.remote = remote
        self._streams: list[NativeFile] = []
        self._position = 0
        self.size = _asked(remote, self._opened_size) if size is None else size
        """In bytes."""

    def _opened_size(self, system: FileSystem, path: str) -> int:
        stream = system.open_input_file(path)
        self._streams.append(stream)
        return int(stream.size())

    def read_at(self, start: int, length: int) -> bytes:
        """Bytes from a place, fewer only at the end; StorageError: they cannot be read."""
        length = max(0, min(length, self.size - start))

        def ask(system: FileSystem, path: str) -> bytes:
            try:
                stream = self._streams.pop()
            except IndexError:  # the first reader of this thread
                stream = system.open_input_file(path)
            content = _part(stream, start, length)
            self._streams.append(stream)
            return content

        return _asked(self.remote, ask) if length else b""

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the position on, and return the number of bytes."""
        content = self.read_at(self._position, len(buffer))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position, and return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def seekable(self) -> bool:
        """Whether the position can be moved: yes."""
        return True

    def close(self) -> None:
        """Let go of the object."""
        while self._streams:
            self._streams.pop().close()
        super().close()


class _TruncatedError(OSError):
    """A body shorter than was asked for."""


def _part(stream: NativeFile, start: int, length: int) -> bytes:
    """Bytes of an open object; OSError: fewer arrived.

    pyarrow reports the length that was asked for even where the server's body was shorter. So the end of the buffer is
    marked at random beforehand: where the mark is still there, the body did not reach it.
    """
    if start + length > (size := stream.size()):
        raise ValueError(f"it ends at byte {size:,}, and bytes up to {start + length:,} were wanted")
    if length == 0:
        return b""
    buffer = bytearray(length)
    mark = secrets.token_bytes(min(16, length))
    buffer[-len(mark) :] = mark
    stream.seek(start)
    arrived = stream.readinto(buffer)
    if arrived != length or buffer[-len(mark) :] == mark:
        raise _TruncatedError(f"truncated: fewer than {length:,} bytes from byte {start:,}")
    return bytes(buffer)


def _write(remote: Remote, opened: Callable[[], io.BufferedIOBase], size: int) -> None:
    if remote.scheme == "file":
        _write_local(Path(f"/{remote.key}"), remote, opened, size)
        return

    def ask(system: FileSystem, path: str) -> None:
        with opened() as source:
            target = system.open_output_stream(path)
            for start in range(0, size, PART):
                target.write(source.read(min(PART, size - start)))
            target.close()
        if size > PART and (info := system.get_file_info(path)).size != size:
            raise _TruncatedError(f"truncated: {info.size} of {size:,} bytes arrived")

    _asked(remote, ask)


def _write_local(path: Path, remote: Remote, opened: Callable[[], io.BufferedIOBase], size: int) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with opened() as source, temporary.open("wb") as target:
                for start in range(0, size, PART):
                    target.write(source.read(min(PART, size - start)))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise problem(remote, error) from None


def _asked(remote: Remote, ask: Callable[[FileSystem, str], Result], *, diagnose: bool = True) -> Result:
    """Ask the file system, again where the error may pass, and say in one sentence what does not."""
    system, path = file_system(remote)
    tries = 0
    while True:
        try:
            return ask(system, path)
        except StorageError:
            raise
        except Exception as error:  # those of fsspec's systems are of any kind
            tries += 1
            most = RETRIES.unreachable if is_no_network(error) else RETRIES.attempts
            if tries >= most or not is_passing(error):
                raise (_diagnosed(remote, system, path, error) if diagnose else problem(remote, error)) from None
        time.sleep(RETRIES.pause_s(tries))


def _diagnosed(remote: Remote, system: FileSystem, path: str, error: Exception) -> StorageError:
    """The sentence for an error; S3's answers to HEAD have no body, so the reason is asked for by a listing."""
    from pyarrow.fs import FileSelector

    vague = is_missing(error) or re.search("HTTP status 40|ACCESS_DENIED", str(error)) is not None
    if vague and ALIASES.get(remote.scheme, remote.scheme) in ("s3", "gs"):
        try:
            system.get_file_info(FileSelector(path, recursive=True))
        except FileNotFoundError:
            pass
        except Exception as reason:  # of any kind; it says more than the first
            if not is_passing(reason):
                return problem(remote, reason)
    return problem(remote, error)


def _object(info: Any, key: str, etags: dict[str, str]) -> Object:
    mtime = None if info.mtime_ns is None else info.mtime_ns / 1e9
    return Object(key, int(info.size), mtime, etags.get(info.path.strip("/")))


def _etags(system: FileSystem, path: str) -> dict[str, str]:
    """The marks of contents below a path, where fsspec's listing has them; it was just made, and is remembered."""
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    if not isinstance(system, PyFileSystem) or not isinstance(system.handler, FSSpecHandler):
        return {}
    found = system.handler.fs.find(path, detail=True)
    marks = {name: info.get("blob_id") or info.get("etag") or info.get("ETag") for name, info in found.items()}
    return {name.strip("/"): str(mark) for name, mark in marks.items() if mark}
