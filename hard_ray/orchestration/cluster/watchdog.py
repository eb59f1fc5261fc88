"""A program that ends the processes of Ray's sessions after the process that started it.

`python watchdog.py SECONDS SESSION...` waits until its standard input is closed, which the kernel does when the process
that started it ends, also by SIGKILL. After SECONDS it kills what is left of the sessions. It imports nothing of
hardray's, so that it costs a few MiB and starts at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

LOOK_EVERY_S = 0.2


def members(sessions: set[int]) -> list[int]:
    """The processes of the sessions that run; ended ones that nobody has asked about are none."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):  # it ended meanwhile
            if os.getsid(int(folder.name)) in sessions and _state(folder) not in "ZX":
                found.append(int(folder.name))
    return found


def _state(folder: Path) -> str:
    text = (folder / "stat").read_text(encoding="utf-8", errors="replace")
    return text.rpartition(")")[2].split()[0]  # a name may hold spaces and brackets


def main(patience_s: float, sessions: set[int]) -> None:
    """Wait for the end of the starter and then of the sessions; kill what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it has to outlive the process that it waits for
    sys.stdin.buffer.read()
    last = time.monotonic() + patience_s
    while members(sessions):
        if time.monotonic() > last:
            for pid in members(sessions):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(LOOK_EVERY_S)


if __name__ == "__main__":
    main(float(sys.argv[1]), {int(number) for number in sys.argv[2:]})
