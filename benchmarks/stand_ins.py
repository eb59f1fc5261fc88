"""Actors that replace a teacher and a worker; they compute nothing and import no torch."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from hard_ray.distillation.messages import Reply
from hard_ray.orchestration.pool.client import PoolAddress, RayPool

IDENTITY = "0" * 64


class Sleeper:
    """A teacher that answers with zeros after a fixed time."""

    def __init__(self, seconds: float, classes: int) -> None:
        """Set the seconds per answer."""
        self.seconds, self.classes = seconds, classes

    def identity(self) -> str:
        """The same identity for all replicas."""
        return IDENTITY

    def logits(self, images: NDArray[np.uint8]) -> Reply[NDArray[np.float32]]:
        """Sleep, then answer with zeros."""
        time.sleep(self.seconds)
        return Reply(IDENTITY, np.zeros((len(images), self.classes), dtype=np.float32))


class Asker:
    """A worker that sends requests at a steady rate, with three in flight."""

    def __init__(self, address: PoolAddress, first: int, shape: tuple[int, ...]) -> None:
        """Connect to the pool; `shape` is the shape of the images."""
        self.pool = RayPool(address, first=first)
        self.pool.identity()
        self.images = np.zeros(shape, dtype=np.uint8)

    def ask(self, rate: float, seconds: float) -> int:
        """Number of answered requests."""
        asked, answered = [], 0
        end, due = time.monotonic() + seconds, time.monotonic()
        while due < end:
            time.sleep(max(0.0, due - time.monotonic()))
            asked.append(self.pool.logits(self.images))
            if len(asked) > 3:
                asked.pop(0).result()
                answered += 1
            due += 1.0 / rate
        for ticket in asked:
            ticket.result()
        return answered + len(asked)
