"""Processes of a cluster that hardray started: their priorities, and their end."""

from __future__ import annotations

import contextlib
import os
import time

import psutil

WORKERS_END_S = 10.0
"""Seconds that Ray's workers have to end after their cluster; they usually need less than one."""


def started_by_ray() -> list[psutil.Process]:
    """The descendants of the raylet that this process started."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            found += child.children(recursive=True) if child.name() == "raylet" else []
    return found


def end_processes(processes: list[psutil.Process]) -> None:
    """Wait for processes to end, and kill the rest: sometimes a worker of Ray hangs in its destructors.

    Source: ray-project/ray#52322 (open): Ray considers such an actor dead and leaves its process.
    """
    last = time.monotonic() + WORKERS_END_S
    while (running := [process for process in processes if _runs(process)]) and time.monotonic() < last:
        time.sleep(0.05)
    for process in running:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _runs(process: psutil.Process) -> bool:
    """Whether a process runs. Zombies do not count as running: in a container nothing may reap them."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


BACKGROUND = 15
"""The niceness of Ray's workers by default (`RAY_worker_niceness`)."""


def give_way() -> None:
    """Lower the priority of this thread, and of those that it starts, below the student's.

    Every update waits for the student. At equal priority it would queue behind a teacher that is a batch ahead, or
    behind data that is not needed yet. No effect if Ray's workers have the niceness `BACKGROUND` already.
    """
    if hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, 0, max(BACKGROUND, os.getpriority(os.PRIO_PROCESS, 0)))
