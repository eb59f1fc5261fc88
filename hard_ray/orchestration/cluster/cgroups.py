"""The limits of processors and memory that control groups set: containers, batch systems and `systemd` use them.

A process is in one group for each controller (version 1), or in one for all (version 2). Every group above it limits it
too, so the smallest limit holds. A container may show only the lower part of the tree, or a path that is not mounted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
NO_LIMIT_BYTES = 2**60
"""Version 1 writes a number near 2**63 where memory has no limit."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of this process; None: there is none."""

    cores: float | None
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class _Mount:
    """A mounted tree of groups."""

    top: str
    """The group that is mounted."""
    place: Path
    controllers: frozenset[str]
    """Those of a version 1 tree; empty: version 2."""


def limits(root: Path = ROOT) -> Limits:
    """Read the limits below `root`, which is another folder only in tests."""
    cores = [read(group) for group, read in _groups(root, "cpu", _cores_v1, _cores_v2)]
    memory = [read(group) for group, read in _groups(root, "memory", _memory_v1, _memory_v2)]
    return Limits(
        cores=min((value for value in cores if value is not None), default=None),
        memory_bytes=min((int(value) for value in memory if value is not None), default=None),
    )


Reader = Callable[[Path], float | None]


def _groups(root: Path, controller: str, first: Reader, second: Reader) -> Iterator[tuple[Path, Reader]]:
    """The folders of this process's groups and of all above them, each with the function that reads its limit."""
    mounts = list(_mounts(root))
    for line in _lines(root / "proc/self/cgroup"):
        _, names, path = line.split(":", 2)
        is_second = not names
        if not is_second and controller not in names.split(","):
            continue
        for mount in mounts:
            if (not mount.controllers) if is_second else controller in mount.controllers:
                yield from ((group, second if is_second else first) for group in _upwards(root, mount, path))


def _upwards(root: Path, mount: _Mount, path: str) -> Iterator[Path]:
    """The folder of a group and those above it, as far as they are mounted."""
    top = root / mount.place.relative_to("/")
    below = os.path.relpath(path, mount.top)
    group = top if below.startswith("..") else top / below
    while True:
        if group.is_dir():
            yield group
        if group == top or top not in group.parents:
            return
        group = group.parent


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) > 4 and kind and kind[0] in ("cgroup", "cgroup2"):
            options = frozenset(kind[-1].split(",")) if kind[0] == "cgroup" else frozenset[str]()
            yield _Mount(fields[3], Path(fields[4]), options)


def _cores_v2(group: Path) -> float | None:
    words = _text(group / "cpu.max").split()
    return _ratio(*words) if len(words) == 2 else None


def _cores_v1(group: Path) -> float | None:
    return _ratio(_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float | None:
    """A quota of time in a period as a number of cores; `max`, -1 and nothing are no limit."""
    if not quota.isdigit() or not period.isdigit() or not int(period):
        return None
    return int(quota) / int(period)


def _memory_v2(group: Path) -> float | None:
    return _bytes(_text(group / "memory.max"))


def _memory_v1(group: Path) -> float | None:
    return _bytes(_text(group / "memory.limit_in_bytes"))


def _bytes(text: str) -> float | None:
    return int(text) if text.isdigit() and int(text) < NO_LIMIT_BYTES else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _lines(path: Path) -> list[str]:
    return _text(path).splitlines()
