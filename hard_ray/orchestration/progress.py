"""Progress of a long job, reported every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

SAY_EVERY_S = 5.0
MEASURED_FROM_S = 1.0
"""Seconds after the first result from which the speed is known: two that come together say nothing of it."""


class ProgressLine:
    """Counts finished images and says when a line is due.

    Speed is measured from the first result on, because actors start before it.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        """Start the clock."""
        self._say = say
        self.done = self._first = 0
        self._began: float | None = None
        self.started = self._said = self._last = time.monotonic()

    @property
    def images_per_s(self) -> float | None:
        """Speed since the first result; None while it is not known."""
        seconds = self._last - (self._began or self._last)
        return (self.done - self._first) / seconds if seconds > MEASURED_FROM_S else None

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
