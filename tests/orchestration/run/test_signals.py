"""Signals ask a run for a checkpoint and the end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hard_ray.orchestration.run import signals as module
from hard_ray.orchestration.run.signals import stop_on_signal
from hard_ray.runs.folder import RunFolder


@pytest.fixture(autouse=True)
def hangup_is_heard() -> Iterator[None]:
    """A child inherits that `nohup` has SIGHUP ignored, under which these tests may run."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def ended(said: list[str]) -> list[str]:
    """What was said, once the thread that says it is done."""
    for thread in threading.enumerate():
        if thread.name == "stop":
            thread.join()
    return said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal_of_an_end_asks_for_a_checkpoint_once(tmp_path: Path, number: signal.Signals):
    folder, said = RunFolder(tmp_path), []
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    with stop_on_signal(folder, said.append):
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)  # `timeout` signals the command, and then its group
        assert folder.stop_request.exists()
        assert len(ended(said)) == 1
    assert {each: signal.getsignal(each) for each in before} == before


def test_a_later_second_signal_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "ONE_PRESS_S", 0.05)
    with pytest.raises(KeyboardInterrupt), stop_on_signal(RunFolder(tmp_path), lambda _: None):
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.1)
        signal.raise_signal(signal.SIGTERM)


def test_a_hangup_that_nohup_has_ignored_stays_ignored(tmp_path: Path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signal(RunFolder(tmp_path), lambda _: None):
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.05)
            assert not RunFolder(tmp_path).stop_request.exists()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_in_the_middle_of_a_line_is_said_after_it(tmp_path: Path):
    """A handler that printed would enter the stream a second time, which Python refuses."""
    lock, said = threading.Lock(), []

    def say(text: str) -> None:
        with lock:  # not re-entrant, like a buffered stream
            said.append(text)

    with stop_on_signal(RunFolder(tmp_path), say):
        with lock:
            signal.raise_signal(signal.SIGTERM)
            said.append("the line")
        assert ended(said)[0] == "the line"
        assert len(said) == 2
