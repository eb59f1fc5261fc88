"""Processes of a cluster that hardray started: their priorities, and their end."""

from __future__ import annotations

import contextlib
import os
import time

import psutil

WORKERS_END_S = 10.0
"""How long Ray's workers may take to end after their cluster; usually it is less than a second."""


def _started_by_ray() -> list[psutil.Process]:
    """What runs below the raylet that this process started."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            found += child.children(recursive=True) if child.name() == "raylet" else []
    return found


def _end(processes: list[psutil.Process]) -> None:
    """End what does not end by itself: of Ray's workers now and then one hangs in its own destructors.

    Source: ray-project/ray#52322, which is open: Ray takes such an actor for dead and leaves its process.
    """
    last = time.monotonic() + WORKERS_END_S
    while (running := [process for process in processes if _runs(process)]) and time.monotonic() < last:
        time.sleep(0.05)
    for process in running:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _runs(process: psutil.Process) -> bool:
    """A zombie does not: in a container nobody may ask for its end."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


BACKGROUND = 15
"""What Ray gives to each of its workers unless told otherwise (`RAY_worker_niceness`)."""


def give_way() -> None:
    """Let this thread, and those that it starts, compute when the student does not.

    Every update waits for the student. While all are alike, the system lets it queue behind a teacher that is a
    batch ahead, or behind data that nobody waits for. Without effect where Ray's workers are at `BACKGROUND` already.
    """
    if hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, 0, max(BACKGROUND, os.getpriority(os.PRIO_PROCESS, 0)))
