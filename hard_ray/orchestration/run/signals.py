"""Handling of Ctrl-C and SIGTERM: stop with a checkpoint."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from hard_ray.runs.folder import RunFolder


@contextlib.contextmanager
def stop_on_signal(folder: RunFolder, say: Callable[[str], None]) -> Iterator[None]:
    """At the first Ctrl-C (or SIGTERM), request a checkpoint and the end; at the second, end at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = 0.0

    def handle(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and time.monotonic() - asked > 1.0:  # one press can arrive twice
            raise KeyboardInterrupt
        asked = asked or time.monotonic()
        folder.stop_request.touch()
        say("stopping after this update, with a checkpoint; press Ctrl-C again to stop without one")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
