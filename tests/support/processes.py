"""Servers that a test starts beside itself, and ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

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


@contextmanager
def mlflow_server(
    folder: Path, port: int, variables: Mapping[str, str], *, files: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow on loopback, which keeps files at a URL, or below `folder`; `variables` name the database."""
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **variables}
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--artifacts-destination", files or str(folder / "kept")],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
        try:
            await_answer(lambda: _healthy(f"http://127.0.0.1:{port}"), process, (folder / "log").read_text)
            yield process
        finally:
            end(process)


def _healthy(uri: str) -> bool:
    try:
        with urlopen(f"{uri}/health", timeout=5):
            return True
    except OSError:
        return False


def lives(process: psutil.Process) -> bool:
    """One that ended and that nobody asked about is no process any more."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def command_lines(pid: int) -> dict[int, str]:
    """The processes that one started, by id, as everybody on the machine sees them; ended ones are none."""
    found = {}
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = " ".join(process.cmdline())
    return found
