"""Files and folders that are written completely or not at all, even if the process is stopped meanwhile."""

from __future__ import annotations

import codecs
import contextlib
import errno
import glob
import json
import os
import secrets
import shutil
import struct
import tempfile
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
"""A temporary folder that was not written to for so many seconds was left by a killed process."""


BEGINNING = ".beginning"
"""This file is in a folder while its first files are written; where it stays, the beginning was interrupted."""


OWN_MARKS = (".lock", ".mirror.json", ".mirror.lock")
"""Files that say who uses a folder, and hold nothing of it."""


def is_vacant(path: Path) -> bool:
    """Whether a folder is free for something new.

    It does not exist, or holds nothing but locks, unfinished files and the state of a copy of a URL that holds nothing,
    or its beginning was interrupted.
    """
    if not path.is_dir():
        return not path.exists()
    names = {entry.name for entry in path.iterdir()}
    return BEGINNING in names or all(name in OWN_MARKS or (name[0] == "." and name.endswith(".tmp")) for name in names)


@contextlib.contextmanager
def beginning(path: Path) -> Iterator[None]:
    """Write the first files of a folder, the one that makes it what it is last; RunFolderError: it cannot be written.

    If the process ends within, the folder stays vacant, and the same command begins it anew.
    """
    mark = path / BEGINNING
    try:
        mark.touch()
        yield
        mark.unlink()
    except OSError as error:
        raise RunFolderError(
            f"{error.filename or path} cannot be written ({error.strerror}); make room or allow it, and give the same "
            "command, which begins the folder anew"
        ) from error


def make_folder(path: Path) -> None:
    """Make a folder and its missing parents; RunFolderError: it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"{path} cannot be made: {error.strerror}; make room or allow it, or choose another --output"
        ) from None


def cache_folder() -> Path:
    """The folder of things that can be made again, such as trained teachers: HARDRAY_CACHE, or the user's cache."""
    base = os.environ.get("HARDRAY_CACHE")
    if base:
        return Path(base).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or home_folder() / ".cache").expanduser() / "hardray"


def home_folder() -> Path:
    """The user's home folder; for a user without one, as containers have, a folder of temporary files."""
    try:
        return Path.home()
    except RuntimeError:  # neither HOME nor an entry in the system's list of users
        return Path(tempfile.gettempdir()) / f"hardray-{os.getuid()}"


@contextlib.contextmanager
def room_wanted() -> Iterator[None]:
    """Turn the error of a full disk into a RunFolderError that says what to do; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        what = f"{error.filename} cannot" if error.filename else "the run's folder cannot"
        raise RunFolderError(
            f"{what} be written to: {error.strerror}; checkpoints are intact: make room, then resume the run"
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step: a reader sees either the old content or the new."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one step."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def read_text(path: Path) -> str:
    """Read a text file that a user wrote: UTF-8 with or without a byte-order mark, or UTF-16 with one.

    Raises OSError, or ValueError if it is neither.
    """
    content = path.read_bytes()
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not {encoding.removesuffix('-sig').upper()} (byte {error.start:,})") from None


def read_json(path: Path, default: Any = None) -> Any:
    """Read a JSON file; `default` if it does not exist; ValueError: it is not JSON, or nested too deeply."""
    try:
        return json.loads(read_text(path))
    except FileNotFoundError:
        return default
    except RecursionError:
        raise ValueError("nested too deeply") from None


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill, which replaces `path` once it is complete.

    Several processes may do so for one path at the same time: each fills a temporary folder of its own.

    Raises:
        OSError: `path` did not exist, and another process has made it meanwhile; that folder stays.
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
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????.tmp"):
        with contextlib.suppress(OSError):  # another process may be removing it
            written = max(part.stat().st_mtime for part in (left, *left.iterdir()))
            if time.time() - written > LEFT_AFTER_S:
                shutil.rmtree(left, ignore_errors=True)


LARGEST = 2**30
"""Largest size of all arrays of an archive together, unpacked, in bytes."""


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read every array by name; ValueError: it is damaged, holds objects, or unpacks to more than `LARGEST`."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > LARGEST:
            raise ValueError(f"it unpacks to {size:,} bytes, more than {LARGEST:,}")
        with np.load(path, allow_pickle=False) as stored:
            return {name: np.asarray(stored[name]) for name in stored.files}
    except (OSError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
