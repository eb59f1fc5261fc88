"""Processes of a cluster that hardray started: their sessions, their priorities, and their end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil

WORKERS_END_S = 10.0
"""Seconds that Ray's workers have to end after their cluster; they usually need less than one."""

_apart = threading.Event()
"""Set while Ray starts; read by the hook below in each process that is forked meanwhile."""


def _leave_session() -> None:
    if _apart.is_set():
        with contextlib.suppress(OSError):  # it leads a session of its own already
            os.setsid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_session)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Put the processes that are forked within the block into sessions of their own.

    Ctrl-C, `timeout`, a batch system and a closing terminal signal the whole process group. Ray's processes would end
    before this one has asked for a checkpoint. Ray forks them with a function of its own, so the hook above runs.
    """
    _apart.set()
    try:
        yield
    finally:
        _apart.clear()


@contextlib.contextmanager
def handlers_kept() -> Iterator[None]:
    """Restore the handler of SIGTERM that the block replaces: Ray installs one, which raises SystemExit.

    A signal within the block ends like Ctrl-C. Python drops what a handler raises within a destructor or a callback, of
    which Ray's start runs many; such a signal ends the block after its last line.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    with _noted_signals() as noted:
        try:
            yield
        except SystemExit:
            raise KeyboardInterrupt from None
        finally:
            if before not in (signal.SIG_DFL, None):
                signal.signal(signal.SIGTERM, before)
        if noted() & {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _noted_signals() -> Iterator[Callable[[], set[int]]]:
    """A function that gives the signals so far that had a handler in Python, whatever became of what it raised.

    What was dropped is not printed: it is no error.
    """
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    report = sys.unraisablehook

    def report_others(dropped: sys.UnraisableHookArgs) -> None:
        if not issubclass(dropped.exc_type, (SystemExit, KeyboardInterrupt)):
            report(dropped)

    sys.unraisablehook = report_others

    def noted() -> set[int]:
        try:
            return set(os.read(reading, 4096))
        except BlockingIOError:
            return set()

    try:
        yield noted
    finally:
        sys.unraisablehook = report
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)


def started_by_ray() -> list[psutil.Process]:
    """The descendants of the raylet that this process started."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            found += child.children(recursive=True) if child.name() == "raylet" else []
    return found


def sessions_of_ray() -> list[int]:
    """The sessions of Ray's processes that this process started; its workers are in the raylet's."""
    own = os.getsid(0)
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error, OSError):
            if child.name() in ("raylet", "gcs_server") and os.getsid(child.pid) != own:
                found.append(os.getsid(child.pid))
    return found


@contextlib.contextmanager
def watched(sessions: Sequence[int]) -> Iterator[None]:
    """End all processes of these sessions soon after the block or this process, whatever ends it; see `watchdog.py`.

    The kernel ends Ray's own processes with this one. Its workers notice that by themselves, except one that hangs or
    computes: such a process kept its memory for a quarter of an hour.
    """
    if not sessions:
        yield
        return
    program = Path(__file__).with_name("watchdog.py")
    watchdog = subprocess.Popen(  # noqa: S603
        [sys.executable, "-I", "-S", str(program), str(WORKERS_END_S), *map(str, sessions)],
        stdin=subprocess.PIPE,  # closed when this process ends
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    try:
        yield
    finally:
        assert watchdog.stdin is not None
        watchdog.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # then it ends what a raylet that was killed has left
            watchdog.wait(timeout=1.0)


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
