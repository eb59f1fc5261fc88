"""Handling of Ctrl-C, SIGTERM and a closed terminal: stop with a checkpoint."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from hard_ray.runs.folder import RunFolder

ONE_PRESS_S = 1.0
"""Seconds within which a second signal counts as the first: `timeout` sends one to the command and one to its group."""


def stop_signals() -> list[signal.Signals]:
    """The signals that ask for an end; the one of a closed terminal only if `nohup` does not have it ignored."""
    hangup = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []
    return [signal.SIGINT, signal.SIGTERM, *hangup]


@contextlib.contextmanager
def stop_on_signal(folder: RunFolder, say: Callable[[str], None]) -> Iterator[None]:
    """At the first signal, request a checkpoint and the end; at the second, end at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = 0.0

    def handle(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and time.monotonic() - asked > ONE_PRESS_S:
            raise KeyboardInterrupt
        if not asked:
            asked = time.monotonic()
            folder.stop_request.touch()
            text = "stopping after this update, with a checkpoint; press Ctrl-C again to stop without one"
            # from a thread: this one may be in the middle of printing, which cannot be entered twice
            threading.Thread(target=say, args=(text,), name="stop").start()

    before = {number: signal.signal(number, handle) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
