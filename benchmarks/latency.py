"""Whether the latency of a teacher is hidden that takes twice as long as an update, and no CPU time.

The student is real and its images are in memory, so that only the pool's latency can slow it. The ideal is the slower
of the student alone and replicas / latency.
"""

from __future__ import annotations

import json
import shutil
import sys
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from benchmarks.rounds import median
from benchmarks.stand_ins import IDENTITY, Sleeper
from benchmarks.work import BATCH, BUILD, CLASSES, Measured, Place, python, quiet_ray
from hard_ray.config.loader import load_config
from hard_ray.data.batch import Batch
from hard_ray.data.sources.build import build_index
from hard_ray.distillation.messages import Ticket
from hard_ray.files import read_json
from hard_ray.orchestration.cluster.demand import DataShare
from hard_ray.orchestration.pool.client import PoolAddress, RayPool
from hard_ray.orchestration.run.builder import Builder
from hard_ray.orchestration.run.plan import RunPlan
from hard_ray.orchestration.stream import Pipeline
from hard_ray.ranks import Ranks

REPLICAS, STEPS = (1, 2, 4, 8), 100


class AtOnce:
    """A pool that answers at once."""

    takes_tensors = False

    def identity(self) -> str:
        """The identity of the sleeping teachers."""
        return IDENTITY

    def logits(self, images: NDArray[np.uint8]) -> Ticket[NDArray[np.float32]]:
        """Answer with zeros."""
        found = np.zeros((len(images), len(CLASSES)), dtype=np.float32)

        class Ready:
            def result(self) -> NDArray[np.float32]:
                return found

        return Ready()

    def loss_and_grad(self, *_: object) -> Any:
        """Never called."""
        raise NotImplementedError


class AtHand(Pipeline):
    """A stream that repeats one batch."""

    def train_batches(self, first: int) -> Generator[Batch]:
        """Make a batch of random pixels."""
        pixels = np.random.default_rng(0).integers(0, 256, (BATCH, 3, 32, 32), dtype=np.uint8)
        labels, ids = np.arange(BATCH) % len(CLASSES), np.arange(BATCH)
        while True:
            yield Batch(pixels, labels, ids, np.zeros(BATCH, dtype=np.int64))

    def eval_batches(self, split: str, batch_size: int) -> Generator[Batch]:
        """The validation split: one batch, not timed."""
        yield next(self.train_batches(0))


class Alone(Builder):
    """A run in this process that reads no data."""

    def _pipeline(self) -> Pipeline:
        made = super()._pipeline()
        return AtHand(made.index, made.config, made.schedule, made.share, made.block_bytes)

    def _report(self, metrics: dict[str, Any]) -> None:
        pass


def updates_per_s(place: Place, pool: Any) -> float:
    """Updates per second of a run of STEPS updates, by its own clock."""
    config = load_config(preset="cifar10", overrides=place.overrides(optim__steps=STEPS, runtime__threads=1))
    folder = BUILD / "latency"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    plan = RunPlan("latency", "main", config, folder)
    parts = (plan, build_index(config.data), Ranks(), torch.device("cpu"), DataShare(1, 1e8), folder / "stop")
    Alone(*parts, pool).train()
    return STEPS / float(read_json(folder / "outcome.json")["seconds"]["total"])


def with_sleepers(place: Place, replicas: int, latency: float) -> float:
    """Updates per second with a pool of sleeping teachers."""
    namespace = uuid.uuid4().hex
    names = tuple(f"teacher-{number}" for number in range(replicas))
    made: Any = ray.remote(Sleeper)
    actors = [made.options(name=name, namespace=namespace, num_cpus=0).remote(latency, len(CLASSES)) for name in names]
    ray.get([actor.identity.remote() for actor in actors])
    runtime = load_config(preset="cifar10").runtime.teacher
    address = PoolAddress(namespace, names, runtime.max_in_flight, runtime.timeout_s)
    try:
        return updates_per_s(place, RayPool(address))
    finally:
        for actor in actors:
            ray.kill(actor)


def main() -> None:
    """Print one round as JSON: the share of the ideal for each number of replicas."""
    place = Place(*map(Path, sys.argv[1:3]))
    torch.set_num_threads(1)
    found = {}
    with quiet_ray(2):
        alone = updates_per_s(place, AtOnce())
        latency = 2.0 / alone
        for replicas in REPLICAS:
            ideal = min(alone, replicas / latency)
            found[f"latency_{replicas}"] = with_sleepers(place, replicas, latency) / ideal
    print(json.dumps(found))


def measure(place: Place, rounds: int) -> Measured:
    """`latency_1`, `_2`, `_4`, `_8`: the share of the ideal."""
    found = [python("latency", place.data, place.teacher) for _ in range(rounds)]
    return {name: median([each[name] for each in found]) for name in found[0]}


if __name__ == "__main__":
    main()
