"""Actors that hold frozen networks, in a job without student workers and without a teacher pool."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hard_ray.config.run import RunConfig
from hard_ray.config.runtime import RuntimeConfig
from hard_ray.orchestration.cluster.connection import connected
from hard_ray.orchestration.cluster.demand import DATA_CPUS
from hard_ray.orchestration.cluster.hardware import usable_cores
from hard_ray.orchestration.cluster.resources import Cluster, resolve_runtime
from hard_ray.orchestration.stream import await_streams

MOST_ACTORS = 8
"""Limit on one machine's cores, as each actor holds the networks; more cores give each more threads."""


@contextlib.contextmanager
def networks_only(config: RunConfig, folder: Path, say: Callable[[str], None]) -> Iterator[tuple[RunConfig, Cluster]]:
    """Connect to a cluster and resolve the configuration for it, without a pool: the actors hold the teacher."""
    teacher = config.runtime.teacher.model_copy(update={"placement": "colocated"})
    alone = config.model_copy(update={"runtime": config.runtime.model_copy(update={"teacher": teacher})})
    with connected(alone.runtime, namespace=f"hardray-{folder.name}-{os.getpid()}", say=say) as cluster:
        try:
            yield resolve_runtime(alone, cluster), cluster
        finally:
            await_streams()


@dataclass(frozen=True, slots=True)
class Actors:
    """Number of actors that hold the networks, with the CPUs, GPUs and threads of each."""

    number: int
    cpus: float
    gpus: float
    threads: int | None

    @classmethod
    def of(cls, runtime: RuntimeConfig, cluster: Cluster) -> Actors:
        """Reserve as much as student workers would; on one machine without GPUs, all cores.

        No student competes for these cores, and several processes with one thread are faster than one with several.
        """
        gpus = runtime.gpus_per_worker or 0.0
        if gpus or not cluster.is_own:
            return cls(runtime.num_workers, runtime.cpus_per_worker, gpus, runtime.threads)
        cores = usable_cores()
        number = max(runtime.num_workers, min(MOST_ACTORS, int(cores // runtime.cpus_per_worker)))
        share = min(runtime.cpus_per_worker, (cluster.resources["CPU"] - DATA_CPUS) / number)
        whole = int(share) or int(100 * share) / 100  # Ray accepts whole CPUs, or a fraction of one
        return cls(number, whole, gpus, max(1, cores // number))
