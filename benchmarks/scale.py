"""What the pool costs in CPU as workers and replicas grow: seconds of all processes for each request.

Replicas sleep and answer; workers ask through hardray's own client and compute nothing.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from typing import Any

import numpy as np
import psutil
import ray

from benchmarks.latency import Sleeper
from benchmarks.work import BATCH, Measured, Place, median, python, quiet_ray
from hard_ray.orchestration.pool import PoolAddress, RayPool

SIZES = (1, 2, 4, 8, 16)
SECONDS, ANSWER_S = 20.0, 0.005
RATE = 64.0
"""Requests a second of all workers together: the same at every size, so that what differs is the size."""


class Asker:
    """A worker that asks at a steady rate and keeps three requests in flight."""

    def __init__(self, address: PoolAddress, first: int) -> None:
        """Connected."""
        self.pool = RayPool(address, first=first)
        self.pool.identity()
        self.images = np.zeros((BATCH, 3, 32, 32), dtype=np.uint8)

    def ask(self, rate: float, seconds: float) -> int:
        """How many were answered."""
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


def cpu_seconds() -> float:
    """Of all processes that this one started, since they began."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def at_rest(seconds: float) -> float:
    """CPU-seconds of so long a time without requests."""
    time.sleep(3.0)
    before = cpu_seconds()
    time.sleep(seconds)
    return cpu_seconds() - before


def at_size(size: int) -> float:
    """CPU-seconds a request with `size` workers and `size` replicas, above what the cluster costs at rest."""
    namespace = uuid.uuid4().hex
    names = tuple(f"teacher-{number}" for number in range(size))
    sleeper: Any = ray.remote(Sleeper)
    asker: Any = ray.remote(Asker)
    actors = [sleeper.options(name=name, namespace=namespace, num_cpus=0).remote(ANSWER_S) for name in names]
    ray.get([actor.identity.remote() for actor in actors])
    address = PoolAddress(namespace, names, 8, 60.0)
    workers = [asker.options(num_cpus=0).remote(address, number) for number in range(size)]
    ray.get([worker.ask.remote(RATE / size, 1.0) for worker in workers])
    resting = at_rest(SECONDS / 2)
    before = cpu_seconds()
    answered = sum(ray.get([worker.ask.remote(RATE / size, SECONDS) for worker in workers]))
    spent = cpu_seconds() - before
    resting += at_rest(SECONDS / 2)
    for actor in (*actors, *workers):
        ray.kill(actor)
    return float((spent - resting) / answered)


def main() -> None:
    """One round, as JSON."""
    sizes = [int(word) for word in sys.argv[1:]] or list(SIZES)
    with quiet_ray(2):
        found = {str(size): at_size(size) for size in sizes}
    print(json.dumps(found))


def measure(place: Place, rounds: int) -> Measured:
    """`scale`: CPU-seconds a request at the largest size over those at 1 x 1."""
    del place
    found = [python("scale") for _ in range(rounds)]
    costs = {size: median([each[size] for each in found]) for size in found[0]}
    print("  " + "  ".join(f"{size} x {size}: {1000 * cost:.2f} ms" for size, cost in costs.items()), flush=True)
    return {"scale": max(costs.values()) / costs["1"]}


if __name__ == "__main__":
    main()
