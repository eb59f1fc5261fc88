"""A run's log of metrics: written line by line, and followed while it grows."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from hard_ray.files import write_text
from pathlib import Path
from typing import Any
import json
import os




class MetricsLog:
    """Appends points to `metrics.jsonl`; on a resume, cuts what lies beyond the checkpoint."""

    def __init__(self, path: Path) -> None:
        """Nothing is opened before the first point."""
        self.path = path

    def append(self, point: Mapping[str, Any]) -> None:
        """Write one line and hand it to the operating system."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(point, ensure_ascii=False) + "\n")

    def cut(self, step: int) -> None:
        """Drop every point beyond `step`, and a last line that a stop left unfinished."""
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
class LogPlace:
    """How far a log was read; a log that a resume cut is a new file, and read anew."""

    inode: int = 0
    offset: int = 0
    _reached: tuple[int, int] = (0, 0)

    def read(self, path: Path, *, until: int | None = None) -> Iterator[dict[str, Any]]:
        """Complete points up to a step; a line that a full disk tore is passed over."""
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

    def keep(self) -> None:
        """What was read is done with."""
        self.inode, self.offset = self._reached


def _point(line: bytes) -> dict[str, Any] | None:
    """The point of a line; None where the line is no JSON."""
    try:
        point: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return point
