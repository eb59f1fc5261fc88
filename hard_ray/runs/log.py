"""A run's log of metrics: written line by line, and followed while it grows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hard_ray.files import write_text


class MetricsLog:
    """Appends points to `metrics.jsonl`; a resume cuts the points after its checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, point: Mapping[str, Any]) -> None:
        """Write one line and flush it to the operating system."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(point, ensure_ascii=False) + "\n")

    def cut(self, step: int) -> None:
        """Drop the points after `step`, and an unfinished last line."""
        if not self.path.exists():
            return
        kept = [line for line, point in read_points(self.path) if point["step"] <= step]
        write_text(self.path, "".join(f"{line}\n" for line in kept))


def read_points(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The complete lines of a metrics log, as text and as points."""
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            if not line.endswith("\n"):
                return
            yield line[:-1], json.loads(line)


@dataclass(slots=True)
class LogTail:
    """Reads the points that were appended to a log; one that a resume cut is a new file, and is read from its start."""

    inode: int = 0
    offset: int = 0
    _reached: tuple[int, int] = (0, 0)

    def read(self, path: Path, *, until: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield the complete points after the last `advance`, up to a step; a line torn by a full disk is skipped."""
        if not path.exists():
            return
        with path.open("rb") as stream:
            inode = os.fstat(stream.fileno()).st_ino
            offset = self.offset if inode == self.inode else 0
            stream.seek(offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                point = _point(line)
                if point is not None and until is not None and point["step"] > until:
                    break
                offset += len(line)
                if point is not None:
                    yield point
            self._reached = (inode, offset)

    def advance(self) -> None:
        """Begin the next `read` where the last one ended; without this call it repeats the same points."""
        self.inode, self.offset = self._reached


def _point(line: bytes) -> dict[str, Any] | None:
    try:
        point = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return point if isinstance(point, dict) and isinstance(point.get("step"), int) else None
