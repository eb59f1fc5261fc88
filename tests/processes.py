"""Servers that a test starts beside itself, and ends."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any

import psutil


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for made in sockets:
        made.bind(("127.0.0.1", 0))
    ports = [made.getsockname()[1] for made in sockets]
    for made in sockets:
        made.close()
    return ports


def await_answer(
    ask: Callable[[], bool], process: subprocess.Popen[Any], log: Callable[[], str], *, seconds: float = 120
) -> None:
    """Until a server that was started answers."""
    last = time.monotonic() + seconds
    while time.monotonic() < last:
        assert process.poll() is None, log()
        if ask():
            return
        time.sleep(0.3)
    raise AssertionError(log())


def end(process: subprocess.Popen[Any], *, patience_s: float = 15) -> None:
    """Everything that a process started, by ids, and itself."""
    try:
        started = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    process.terminate()
    _, left = psutil.wait_procs(started, timeout=patience_s)
    for item in left:
        try:
            item.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, timeout=patience_s)
