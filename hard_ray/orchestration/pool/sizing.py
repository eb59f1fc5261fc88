"""The size of a teacher pool that follows its load.

The cycle, about once a second:

1. Workers report to the `Board` how many of their requests wait for an answer (`pool/client.py`).
2. `PoolSizer` reads the sum from the board, in a thread of the driver.
3. `LoadFollower` decides whether one replica more or one fewer is wanted.
4. A new replica loads its network before the board lists it; one too many leaves the list and is ended later.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
HEARD_WITHIN_S = 10.0
"""A worker whose last report is older than this counts as waiting for nothing."""

DRAIN_S = 15.0
"""Seconds that a replica taken off the board has to answer its open requests."""

BUSY, GROW_AFTER = 1.5, 4
"""A replica is added after `GROW_AFTER` looks with more than `BUSY` open requests per replica."""

SHRINK_AFTER = 30
"""A replica is removed after this many looks with fewer open requests than replicas."""


class Board:
    """The names of the replicas and the number of waiting requests, in an actor that computes nothing else."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._waiting: dict[str, tuple[int, float]] = {}

    def exchange(self, worker: str, waiting: int) -> tuple[str, ...]:
        """Record how many requests of a worker wait, and return the names of the replicas."""
        self._waiting[worker] = (waiting, time.monotonic())
        return self._names

    def watch(self, names: tuple[str, ...]) -> int:
        """List these replicas to workers, and return the waiting requests of all workers with a recent report."""
        self._names = names
        since = time.monotonic() - HEARD_WITHIN_S
        self._waiting = {worker: report for worker, report in self._waiting.items() if report[1] >= since}
        return sum(count for count, _ in self._waiting.values())


@dataclass(slots=True)
class LoadFollower:
    """Decides the number of replicas from repeated looks at the load, slowly: a replica takes seconds to load."""

    least: int
    most: int
    _busy: int = 0
    _idle: int = 0

    def __call__(self, replicas: int, waiting: int) -> int:
        """The wanted number: the same, one more or one fewer; `waiting` includes requests in computation."""
        self._busy = self._busy + 1 if waiting > BUSY * replicas else 0
        self._idle = self._idle + 1 if waiting < replicas else 0
        if self._busy >= GROW_AFTER and replicas < self.most:
            self._busy = 0
            return replicas + 1
        if self._idle >= SHRINK_AFTER and replicas > self.least:
            self._idle = 0
            return replicas - 1
        return replicas


@dataclass(slots=True)
class _Coming:
    """A replica that is loading its network, or waiting for a node."""

    name: str
    actor: ActorHandle[Any]
    loaded: ray.ObjectRef[Any]


@dataclass(slots=True)
class PoolSizer:
    """Watches the board from a thread of the driver, and starts and ends replicas.

    The board lists a replica once its network is loaded. One too many is first taken off the board, and ended after
    `DRAIN_S`; workers resend what it has not answered by then.
    """

    begin: Callable[[str], ActorHandle[Any]]
    """Starts a replica under a name, and returns at once."""
    board: Any
    replicas: dict[str, ActorHandle[Any]]
    decide: Callable[[int, int], int]
    say: Callable[[str], None] = logger.info
    every_s: float = LOOK_EVERY_S
    _coming: _Coming | None = None
    _going: list[tuple[ActorHandle[Any], float]] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _numbers: itertools.count[int] = field(init=False)

    def __post_init__(self) -> None:
        self._numbers = itertools.count(len(self.replicas))

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._watch, name="pool-size", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, every replica and the board."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        coming = [self._coming.actor] if self._coming is not None else []
        for actor in (*self.replicas.values(), *coming, *(actor for actor, _ in self._going), self.board):
            ray.kill(actor, no_restart=True)

    def _watch(self) -> None:
        while not self._stopped.wait(self.every_s):
            try:
                self.look()
            except RayError as error:
                logger.warning("the teacher pool cannot be resized: %s", error)

    def look(self) -> None:
        """Look at the load once, and start or end at most one replica."""
        waiting = self._list(self.replicas)
        self._end_drained()
        if self._coming is not None:  # one at a time: the load is judged again once it answers
            self._admit(self._coming)
            if self._coming is not None and self.decide(len(self.replicas) + 1, waiting) <= len(self.replicas):
                self._cancel(self._coming)
            return
        wanted = self.decide(len(self.replicas), waiting)
        if wanted > len(self.replicas):
            self._grow(waiting)
        elif wanted < len(self.replicas):
            self._shrink()

    def _grow(self, waiting: int) -> None:
        name = f"teacher-{next(self._numbers)}"
        actor: Any = self.begin(name)
        self._coming = _Coming(name, actor, actor.identity.remote())
        self.say(f"teacher pool: {waiting} requests wait for {len(self.replicas)} replicas; one more starts")

    def _admit(self, coming: _Coming) -> None:
        """List a new replica once it can answer, or drop it if it failed."""
        if not ray.wait([coming.loaded], timeout=0)[0]:
            return
        self._coming = None
        try:
            ray.get(coming.loaded)
        except RayError as error:
            ray.kill(coming.actor, no_restart=True)
            self.say(f"teacher pool: {coming.name} did not start ({type(error).__name__})")
            return
        self.replicas = {**self.replicas, coming.name: coming.actor}
        self._list(self.replicas)
        self.say(f"teacher pool: {len(self.replicas)} replicas")

    def _cancel(self, coming: _Coming) -> None:
        """Withdraw the request for a replica that the cluster had no room for, once the load has fallen."""
        self._coming = None
        ray.kill(coming.actor, no_restart=True)
        self.say(f"teacher pool: little to do; {coming.name}, which has not started, is cancelled")

    def _shrink(self) -> None:
        *kept, last = self.replicas
        actor = self.replicas[last]
        self.replicas = {name: self.replicas[name] for name in kept}
        self._list(self.replicas)
        self._going.append((actor, time.monotonic() + DRAIN_S))
        self.say(f"teacher pool: little to do; {len(self.replicas)} replicas")

    def _list(self, names: Iterable[str]) -> int:
        """Write the list to the board at every look, since it may have restarted empty; return the waiting requests."""
        waiting: int = ray.get(self.board.watch.remote(tuple(names)), timeout=HEARD_WITHIN_S)
        return waiting

    def _end_drained(self) -> None:
        now = time.monotonic()
        for actor, until in self._going:
            if now >= until:
                ray.kill(actor, no_restart=True)
        self._going = [(actor, until) for actor, until in self._going if now < until]
