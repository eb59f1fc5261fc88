"""Progress of a long job, reported every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

SAY_EVERY_S = 5.0


class ProgressLine:
    """Counts finished images and says when a line is due.

    Speed is measured from the first result on, because actors start before it.
    """

    def __init__(self, say: Callable[[str], None], *, measured_from_s: float = 0.0) -> None:
        """Start the clock; the speed is known from `measured_from_s` seconds after the first result."""
        self._say = say
        self._measured_from_s = measured_from_s
        self.done = self._first = 0
        self._began: float | None = None
        self.started = self._said = self._last = time.monotonic()

    @property
    def images_per_s(self) -> float | None:
        """Speed since the first result; None while it is not known."""
        seconds = self._last - (self._began or self._last)
        return (self.done - self._first) / seconds if seconds > self._measured_from_s else None

    @property
    def is_due(self) -> bool:
        """Whether the last line was said some seconds before the last result."""
        return self._last - self._said > SAY_EVERY_S

    def add(self, images: int) -> None:
        """Count finished images."""
        self._last = time.monotonic()
        self.done += images
        if self._began is None:
            self._began, self._first = self._last, self.done

    def say(self, line: str) -> None:
        """Report a line."""
        self._said = self._last
        self._say(line)
