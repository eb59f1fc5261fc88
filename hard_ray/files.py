"""Files and folders that are complete or not there: a stop at any moment leaves them whole."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import secrets
import shutil
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hard_ray.errors import RunFolderError

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


LEFT_AFTER_S = 3600.0
"""A folder in the making that nothing was written to for so long is left of a process that was killed."""


def is_vacant(path: Path) -> bool:
    """Whether something new may have this folder: it is not there, or holds nothing but a lock."""
    return not path.exists() or (path.is_dir() and all(entry.name == ".lock" for entry in path.iterdir()))


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there.

    Raises:
        RunFolderError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{path} cannot be made: {error.strerror}") from None


def cache_folder() -> Path:
    """Where what can be made again is kept, such as trained teachers: HARDRAY_CACHE, else the user's cache folder."""
    base = os.environ.get("HARDRAY_CACHE")
    if base:
        return Path(base).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "hardray"


@contextlib.contextmanager
def room_wanted() -> Iterator[None]:
    """A full disk is something that the user can mend, wherever a run meets it.

    Raises:
        RunFolderError: it is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        what = f"{error.filename} cannot" if error.filename else "the run's folder cannot"
        raise RunFolderError(
            f"{what} be written to: {error.strerror}; checkpoints are whole: make room, then resume the run"
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step: a reader sees the old content or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one step."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, default: Any = None) -> Any:
    """A JSON file's value; `default` where there is no such file.

    Raises:
        ValueError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except RecursionError:
        raise ValueError("nested too deeply") from None


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `path` once it is complete.

    Another process may fill one for the same place at the same time: each has a name of its own.

    Raises:
        OSError: there was no `path`, and by now another process made it; what it made stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_left(path)
    replaces = path.exists()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if replaces and path.exists():
            path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _remove_left(path: Path) -> None:
    """Remove what processes that were killed have left of a folder for `path`."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????.tmp"):
        with contextlib.suppress(OSError):  # another process removes it, too
            written = max(part.stat().st_mtime for part in (left, *left.iterdir()))
            if time.time() - written > LEFT_AFTER_S:
                shutil.rmtree(left, ignore_errors=True)


LARGEST = 2**30
"""Bytes of all arrays of an archive together, as they are in memory."""


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Every array by its name.

    Raises:
        ValueError: damaged, of objects, or larger than `LARGEST` once it is unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > LARGEST:
            raise ValueError(f"it unpacks to {size:,} bytes, more than {LARGEST:,}")
        with np.load(path, allow_pickle=False) as stored:
            return {name: np.asarray(stored[name]) for name in stored.files}
    except (OSError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
