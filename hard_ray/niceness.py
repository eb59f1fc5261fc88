"""Who computes first where student, teacher and data share the cores of a machine."""

from __future__ import annotations

import os

BACKGROUND = 15
"""What Ray gives to each of its workers unless told otherwise (`RAY_worker_niceness`)."""


def give_way() -> None:
    """Let this thread, and those that it starts, compute when the student does not.

    Every update waits for the student. While all are alike, the system lets it queue behind a teacher that is a
    batch ahead, or behind data that nobody waits for. Without effect where Ray's workers are at `BACKGROUND` already.
    """
    if hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, 0, max(BACKGROUND, os.getpriority(os.PRIO_PROCESS, 0)))
