"""The background thread that keeps MLflow up to date while a run goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from hard_ray.runs.system_metrics import SystemSampler
from hard_ray.runs.tracking import Follower, readable_problem

logger = logging.getLogger(__name__)

FOLLOW_EVERY_S = 2.0
LONGEST_PAUSE_S = 60.0
CLOSE_AGAIN_AFTER_S = (1.0, 2.0)
"""Pauses before the runs are closed again: one request that fails at the end costs no `hardray sync`."""
SILENCE_S = 10.0
"""An error that takes so long is that of a server that does not answer; the next run would wait as long."""


class Tracking:
    """A thread that follows the folders of a run, and waits longer while the server does not answer."""

    def __init__(self, followers: list[Follower], *, sample_system: bool) -> None:
        self.followers = followers
        self.problem: str | None = None
        self._sampler = SystemSampler(followers[0].folder) if sample_system else None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mlflow", daemon=True)

    def start(self) -> None:
        """Follow in the background."""
        self._thread.start()

    @property
    def is_started(self) -> bool:
        """Whether `start` was called."""
        return self._thread.ident is not None

    def stop(self, closing: Callable[[], None], *, patience_s: float) -> bool:
        """End the thread, then close the runs; whether all was sent within `patience_s` seconds."""
        self._stopping.set()
        done = threading.Event()

        def close() -> None:
            self._thread.join()
            for pause in (*CLOSE_AGAIN_AFTER_S, None):
                try:
                    closing()
                    self.problem = None
                    done.set()
                    return
                except Exception as error:  # the server's errors are of any kind; nothing is lost
                    self.problem = readable_problem(error)
                if pause is not None:
                    time.sleep(pause)

        closer = threading.Thread(target=close, name="mlflow-close", daemon=True)
        closer.start()
        closer.join(patience_s)
        for follower in self.followers:
            follower.given_up = not done.is_set()
        return done.is_set()

    def _follow(self) -> None:
        pause, reopened = FOLLOW_EVERY_S, False
        while not self._stopping.wait(pause if reopened else 0.0):
            try:
                if not reopened:
                    for follower in self.followers:
                        follower.reopen()
                    reopened = True
                self._sample()
                each_in_turn([follower.follow for follower in self.followers])
                self.problem, pause = None, FOLLOW_EVERY_S
            except Exception as error:  # the server's errors are of any kind; the next round tries again
                self.problem, reopened = readable_problem(error), True
                pause = min(2 * pause, LONGEST_PAUSE_S)
                logger.debug("MLflow cannot be reached: %s", self.problem)

    def _sample(self) -> None:
        """Sample this machine's use; where that fails, the runs are followed all the same."""
        try:
            if self._sampler is not None:
                self._sampler.sample()
        except Exception as error:  # a monitor's errors are of any kind
            logger.warning("the use of this machine is not recorded: %s", readable_problem(error))
            self._sampler = None


def each_in_turn(calls: Iterable[Callable[[], None]]) -> None:
    """Make every call, and raise the first error afterwards; one address that does not answer ends it at once."""
    problem: Exception | None = None
    for call in calls:
        began = time.monotonic()
        try:
            call()
        except Exception as error:  # the server's errors are of any kind
            problem = problem or error
            if time.monotonic() - began > SILENCE_S:
                break
    if problem is not None:
        raise problem
