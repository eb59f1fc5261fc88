"""The folders in which Ray keeps sockets, logs and objects: whether they can be used, before Ray is started."""

from __future__ import annotations

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
    _check_written(folder, f"{name} is {folder}", remedy)
    if SHARED_MEMORY.is_dir():
        _check_written(
            SHARED_MEMORY,
            f"{SHARED_MEMORY} is the place of Ray's object store",
            "mount it writable, with some GiB (`docker run --shm-size=2g`, or an emptyDir with medium: Memory)",
        )


def _check_written(folder: Path, what: str, remedy: str) -> None:
    """Write a little file into a folder, or below the first one that exists above it."""
    there = folder
    while not there.is_dir() and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there) as stream:
            stream.write(b"0" * 4096)
            stream.flush()
    except OSError as error:
        raise ClusterError(f"{what}, where nothing can be written ({error.strerror}); {remedy}") from None
    if (free := free_gib(there)) < LEAST_GIB:
        raise ClusterError(f"{what}, where {free:.2f} GiB are free and Ray needs {LEAST_GIB:g}; make room, or {remedy}")
