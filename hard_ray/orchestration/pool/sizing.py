"""The size of a teacher pool that follows its load: what workers wait for, and replicas that come and go."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
HEARD_WITHIN_S = 10.0
"""A worker that has said nothing for so long asks for nothing."""

DRAIN_S = 15.0
"""How long a replica that workers are no longer told of finishes what it was asked."""

BUSY, GROW_AFTER = 1.5, 4
"""Waiting requests for each replica, of which it computes one, and for how many looks: then one more starts."""

SHRINK_AFTER = 30
"""For how many looks fewer requests than replicas must wait: then one replica fewer is enough."""


class Board:
    """Which replicas there are, and how many requests wait. An actor that computes nothing, so it answers at once."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._waiting: dict[str, tuple[int, float]] = {}

    def exchange(self, worker: str, waiting: int) -> tuple[str, ...]:
        """A worker says how many of its requests wait, and hears which replicas there are."""
        self._waiting[worker] = (waiting, time.monotonic())
        return self._names

    def watch(self, names: tuple[str, ...]) -> int:
        """Tell workers of these replicas from now on; requests that wait, of all workers that were heard of lately."""
        self._names = names
        since = time.monotonic() - HEARD_WITHIN_S
        self._waiting = {worker: said for worker, said in self._waiting.items() if said[1] >= since}
        return sum(count for count, _ in self._waiting.values())


@dataclass(slots=True)
class LoadFollower:
    """Decides the number of replicas from looks at the load, slowly: a replica takes seconds to load."""

    least: int
    most: int
    _busy: int = 0
    _idle: int = 0

    def __call__(self, replicas: int, waiting: int) -> int:
        """The number wanted: as it is, one more or one fewer.

        Args:
            replicas: how many answer now.
            waiting: requests that wait for an answer, those that are computed included.
        """
        self._busy = self._busy + 1 if waiting > BUSY * replicas else 0
        self._idle = self._idle + 1 if waiting < replicas else 0
        if self._busy >= GROW_AFTER and replicas < self.most:
            self._busy = 0
            return replicas + 1
        if self._idle >= SHRINK_AFTER and replicas > self.least:
            self._idle = 0
            return replicas - 1
        return replicas


class Starter(Protocol):
    """Starts a replica under a name."""

    def __call__(self, name: str) -> ActorHandle[Any]:
        """Returns at once."""
        ...


@dataclass(slots=True)
class _Coming:
    """A replica that loads its network, or waits for a node."""

    name: str
    actor: ActorHandle[Any]
    loaded: ray.ObjectRef[Any]


@dataclass(slots=True)
class PoolSizer:
    """Watches the board from a thread of the driver, and starts and ends replicas.

    Workers hear of a replica once its network is loaded. One that is too many is taken off the board first, and
    ended when it has answered; what it is asked meanwhile is sent again by those who asked.
    """

    begin: Starter
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
        """Later replicas go on with the numbers of the first."""
        self._numbers = itertools.count(len(self.replicas))

    def start(self) -> None:
        """Begin to watch."""
        self._thread = threading.Thread(target=self._watch, name="pool-size", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the watch, every replica and the board."""
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
                logger.warning("the size of the teacher pool cannot be seen to: %s", error)

    def look(self) -> None:
        """Look at the load once."""
        waiting = self._tell(self.replicas)
        self._end_drained()
        if self._coming is not None:
            self._greet(self._coming)
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

    def _greet(self, coming: _Coming) -> None:
        """Let workers know of a replica once it can answer."""
        if not ray.wait([coming.loaded], timeout=0)[0]:
            return
        self._coming = None
        try:
            ray.get(coming.loaded)
        except RayError as error:
            ray.kill(coming.actor, no_restart=True)
            self.say(f"teacher pool: {coming.name} did not come up ({type(error).__name__})")
            return
        self.replicas = {**self.replicas, coming.name: coming.actor}
        self._tell(self.replicas)
        self.say(f"teacher pool: {len(self.replicas)} replicas")

    def _cancel(self, coming: _Coming) -> None:
        """Ask the cluster no longer for a replica that found no place while there was something to do."""
        self._coming = None
        ray.kill(coming.actor, no_restart=True)
        self.say(f"teacher pool: little to do; {coming.name}, which has not come up, is not wanted any more")

    def _shrink(self) -> None:
        *kept, last = self.replicas
        actor = self.replicas[last]
        self.replicas = {name: self.replicas[name] for name in kept}
        self._tell(self.replicas)
        self._going.append((actor, time.monotonic() + DRAIN_S))
        self.say(f"teacher pool: little to do; {len(self.replicas)} replicas")

    def _tell(self, names: Iterable[str]) -> int:
        """The board may have died and begun anew, so it is told at every look; how many requests wait."""
        waiting: int = ray.get(self.board.watch.remote(tuple(names)), timeout=HEARD_WITHIN_S)
        return waiting

    def _end_drained(self) -> None:
        now = time.monotonic()
        for actor, until in self._going:
            if now >= until:
                ray.kill(actor, no_restart=True)
        self._going = [(actor, until) for actor, until in self._going if now < until]
