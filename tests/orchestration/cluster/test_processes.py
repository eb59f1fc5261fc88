"""Processes that a cluster starts are shielded from this one's signals, and do not outlive it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hard_ray.orchestration.cluster import processes
from hard_ray.orchestration.cluster.processes import apart, handlers_kept, watched
from tests.support.processes import lives

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def forked() -> subprocess.Popen[bytes]:
    """A process as Ray starts its own: with a function that runs between fork and exec."""
    return subprocess.Popen(SLEEP, preexec_fn=lambda: None)  # noqa: PLW1509


def test_what_ray_forks_while_it_starts_is_in_a_session_of_its_own():
    with apart():
        shielded = forked()
    usual = forked()
    try:
        assert os.getsid(shielded.pid) == shielded.pid
        assert os.getsid(usual.pid) == os.getsid(0)
    finally:
        for process in (shielded, usual):
            process.kill()
            process.wait()


DEAF = """
import signal, time
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
print("up", flush=True)
time.sleep(600)
"""
LEADER = """
import subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
worker.stdout.readline()
print(worker.pid, flush=True)
worker.wait()
"""
DRIVER = """
import subprocess, sys, time
from hard_ray.orchestration.cluster import processes
processes.WORKERS_END_S = 0.5
leader = subprocess.Popen([sys.executable, "-c", *sys.argv[1:]], start_new_session=True, stdout=subprocess.PIPE)
print(leader.pid, int(leader.stdout.readline()), flush=True)
with processes.watched([leader.pid]):
    print("watched", flush=True)
    time.sleep(600)
"""


def watchdogs(pid: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(pid).children() if "watchdog.py" in " ".join(child.cmdline())]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_hangs_ends_soon_after_a_killed_driver(end: signal.Signals):
    command = [sys.executable, "-c", DRIVER, LEADER, DEAF]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    leader, worker = (psutil.Process(int(pid)) for pid in driver.stdout.readline().split())
    assert driver.stdout.readline() == "watched\n"
    (watchdog,) = watchdogs(driver.pid)
    os.killpg(driver.pid, end)
    driver.wait()
    last = time.monotonic() + 20
    while any(map(lives, (leader, worker, watchdog))) and time.monotonic() < last:
        time.sleep(0.1)
    assert [process.pid for process in (leader, worker, watchdog) if lives(process)] == []


def test_a_cluster_that_ends_takes_its_watchdog_along():
    with apart():
        ended = forked()
    with watched([ended.pid]):
        (watchdog,) = watchdogs(os.getpid())
        ended.kill()
        ended.wait()
    assert not lives(watchdog)
    with watched([]):
        assert watchdogs(os.getpid()) == []


def test_what_a_killed_raylet_leaves_ends_after_the_cluster(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "WORKERS_END_S", 0.2)
    command = [sys.executable, "-c", LEADER, DEAF]
    leader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    worker = psutil.Process(int(leader.stdout.readline()))
    with watched([leader.pid]):
        leader.kill()
        leader.communicate()
        assert lives(worker)
    psutil.wait_procs([worker], timeout=10)
    assert not lives(worker)


def test_handlers_that_a_library_replaces_are_put_back():
    def own(*_: object) -> None:
        pass

    before = signal.signal(signal.SIGTERM, own)
    try:
        with handlers_kept():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) is own
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with handlers_kept():
            signal.signal(signal.SIGTERM, own)  # Ray's, which ends its processes
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


class SignalledAtItsEnd:
    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)  # the handler runs here, where Python drops what it raises


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt])
def test_a_signal_is_heard_whose_exception_is_dropped(raised: type[BaseException]):
    def handle(*_: object) -> None:
        raise raised

    after: list[str] = []
    before = signal.signal(signal.SIGTERM, handle)
    try:
        with pytest.raises(KeyboardInterrupt), handlers_kept():
            signal.signal(signal.SIGTERM, handle)
            SignalledAtItsEnd()
            after.append("the block went on")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert after == ["the block went on"]
    assert signal.set_wakeup_fd(-1) == -1


def test_only_sessions_of_ray_are_watched(tmp_path: Path):
    script = tmp_path / "raylet"
    script.write_text("#!/bin/sh\nsleep 600\n")
    script.chmod(0o755)
    started = [subprocess.Popen([script], start_new_session=own) for own in (True, False)]
    try:
        time.sleep(0.2)
        assert processes.sessions_of_ray() == [started[0].pid]
    finally:
        for process in started:
            for child in psutil.Process(process.pid).children():
                child.kill()
            process.kill()
            process.wait()
