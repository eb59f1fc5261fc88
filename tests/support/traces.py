"""Which files a command and everything that it starts touch, as the kernel sees it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

STRACE = (
    "strace",
    "-ff",
    "-qq",
    "--seccomp-bpf",
    "-y",
    "-e",
    "trace=%file",
    "-e",
    "signal=none",
    "-e",
    "status=successful",
)
"""Records the calls with a path that succeed, one file for each thread."""

CALL = re.compile(r"^(\w+)\((.*)\)\s+= \d+(?:<(.*)>)?")
PATH = re.compile(r'(?:AT_FDCWD|\d+)<([^>]*)>, "((?:[^"\\]|\\.)*)"|"((?:[^"\\]|\\.)*)"')
LOOKS = (
    "access",
    "faccessat",
    "getcwd",
    "getxattr",
    "lgetxattr",
    "listxattr",
    "llistxattr",
    "lstat",
    "newfstatat",
    "readlink",
    "stat",
    "statfs",
    "statx",
)
"""Calls that tell of a file's existence, size or place, and not what it holds."""
OPENS = ("open", "openat", "openat2", "creat")
WRITING = re.compile(r"O_(?:WRONLY|RDWR|CREAT|TRUNC)")
READS = ("chdir", "execve", "inotify_add_watch")


@dataclass(frozen=True, order=True)
class Touch:
    """One file that was opened, made, moved, changed or removed."""

    path: str
    is_written: bool


def traced(log: Path) -> tuple[str, ...]:
    """The words before a command whose calls go to files that begin as `log`."""
    return (*STRACE, "-o", str(log))


def touches(log: Path) -> set[Touch]:
    """What the traces that begin as `log` say.

    A path without a folder counts from wherever its process is, so it stays as it is: look at `chdir` for it.
    """
    found: set[Touch] = set()
    for trace in log.parent.glob(f"{log.name}.*"):
        for line in trace.read_text(errors="replace").splitlines():
            found |= _touches(line)
    return found


def _touches(line: str) -> set[Touch]:
    call = CALL.match(line)
    if call is None or call[1].startswith(LOOKS):
        return set()
    name, arguments, opened = call.groups()
    if name in OPENS:
        return {Touch(opened or "?", name == "creat" or WRITING.search(arguments) is not None)}
    named = PATH.findall(arguments)[: 1 if name in (*READS, "symlink", "symlinkat") else 2]
    paths = [plain if plain else _joined(folder, relative) for folder, relative, plain in named]
    return {Touch(path, name not in READS) for path in paths}


def _joined(folder: str, path: str) -> str:
    return path if path.startswith("/") else f"{folder}/{path}"
