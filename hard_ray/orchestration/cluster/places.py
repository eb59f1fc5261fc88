"""The folders in which Ray keeps sockets, logs and objects: whether they can be used, before Ray is started."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from hard_ray.errors import ClusterError
from hard_ray.orchestration.cluster.hardware import free_gib

LONGEST_SOCKET = 107
"""Bytes that a path of a Unix socket may have on Linux, without its final zero."""

SOCKET = "/ray/session_2026-01-31_23-59-59_123456_4194304/sockets/plasma_store"
"""The longest path of a socket that Ray makes in its folder: a process id has at most seven digits."""

LEAST_GIB = 0.1
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  (Ray's object store is there)


def temporary_folder() -> tuple[str, Path]:
    """The variable that names the folder of Ray's sockets and logs, and the folder."""
    for name in ("RAY_TMPDIR", "TMPDIR"):
        if name in os.environ:
            return name, Path(os.environ[name])
    return "TMPDIR", Path("/tmp")  # noqa: S108  (Ray's default)


def check_places() -> None:
    """Raise a ClusterError if Ray cannot use its folders on this machine."""
    name, folder = temporary_folder()
    remedy = f"set {name} to a folder that can be written, such as {name}=/tmp"
    length = len(os.fsencode(f"{folder}{SOCKET}"))
    if length > LONGEST_SOCKET:
        most = LONGEST_SOCKET - len(SOCKET)
        raise ClusterError(
            f"{name} is {folder}, of {len(os.fsencode(folder))} bytes: Ray's sockets in it would have paths of "
            f"{length} bytes, and the system allows {LONGEST_SOCKET}; set RAY_TMPDIR to a folder of at most {most} "
            "bytes, such as RAY_TMPDIR=/tmp"
        )
    if not folder.is_absolute():
        raise ClusterError(f"{name} is {folder}, and Ray wants an absolute path there; {remedy}")
    if (problem := _problem(folder)) is not None:
        raise ClusterError(f"{name} is {folder}, where nothing can be written ({problem.strerror}); {remedy}")
    if (free := free_gib(_existing(folder))) < LEAST_GIB:
        raise ClusterError(
            f"{name} is {folder}, where {free:.2f} GiB are free and Ray needs {LEAST_GIB:g}; make room, or {remedy}"
        )
    _check_shared_memory()


def _check_shared_memory() -> None:
    """Refuse shared memory that cannot be written; if it is only small or full, Ray takes slower files instead."""
    problem = _problem(SHARED_MEMORY) if SHARED_MEMORY.is_dir() else None
    if problem is not None and problem.errno not in (errno.ENOSPC, errno.EDQUOT):
        raise ClusterError(
            f"{SHARED_MEMORY} is the place of Ray's object store, and nothing can be written there "
            f"({problem.strerror}); mount it writable, with some GiB (`docker run --shm-size=2g`, or an emptyDir with "
            "medium: Memory)"
        )


def _problem(folder: Path) -> OSError | None:
    """The reason why no file can be written to a folder, or below the first one that exists above it."""
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)) as stream:
            stream.write(b"0" * 4096)
            stream.flush()
    except OSError as error:
        return error
    return None


def _existing(folder: Path) -> Path:
    return next((path for path in (folder, *folder.parents) if path.is_dir()), folder)
