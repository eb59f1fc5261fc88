"""CPU cost of the pool as workers and replicas grow: seconds of all processes per request.

Replicas sleep and answer; workers send requests through hardray's own client and compute nothing.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from typing import Any

import psutil
import ray

from benchmarks.rounds import median
from benchmarks.stand_ins import Asker, Sleeper
from benchmarks.work import BATCH, CLASSES, Measured, Place, python, quiet_ray
from hard_ray.orchestration.pool.client import PoolAddress

SIZES, LARGEST = (1, 2, 4, 8, 16), 32
LARGEST_BYTES = 10 * 2**30
"""Free memory that the largest size needs: 64 processes and Ray's own."""

SECONDS, ANSWER_S = 20.0, 0.005
RATE = 64.0
"""Requests per second of all workers together, the same at every size."""


def cpu_seconds() -> float:
    """CPU seconds of all processes that this one started, since their start."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def at_rest(seconds: float) -> float:
    """CPU seconds in a time of this length without requests."""
    time.sleep(3.0)
    before = cpu_seconds()
    time.sleep(seconds)
    return cpu_seconds() - before


def at_size(size: int) -> float:
    """CPU seconds per request with `size` workers and `size` replicas, above the cost of the idle cluster."""
    namespace = uuid.uuid4().hex
    names = tuple(f"teacher-{number}" for number in range(size))
    sleeper: Any = ray.remote(num_cpus=0)(Sleeper)
    asker: Any = ray.remote(num_cpus=0)(Asker)
    actors = [sleeper.options(name=name, namespace=namespace).remote(ANSWER_S, len(CLASSES)) for name in names]
    ray.get([actor.identity.remote() for actor in actors])
    address = PoolAddress(namespace, names, 8, 60.0)
    workers = [asker.remote(address, number, (BATCH, 3, 32, 32)) for number in range(size)]
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
    """Print one round as JSON."""
    sizes = [int(word) for word in sys.argv[1:]] or list(SIZES)
    if not sys.argv[1:] and psutil.virtual_memory().available >= LARGEST_BYTES:
        sizes.append(LARGEST)
    with quiet_ray(2):
        found = {str(size): at_size(size) for size in sizes}
    print(json.dumps(found))


def measure(place: Place, rounds: int) -> Measured:
    """`scale`: CPU seconds per request at the largest size over those at 1 x 1."""
    del place
    found = [python("scale") for _ in range(rounds)]
    costs = {size: median([each[size] for each in found]) for size in found[0]}
    print("  " + "  ".join(f"{size} x {size}: {1000 * cost:.2f} ms" for size, cost in costs.items()), flush=True)
    return {"scale": max(costs.values()) / costs["1"]}


if __name__ == "__main__":
    main()
