"""Starting the teacher pool: actors that hold the frozen teacher. Workers send requests through `pool/client.py`."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorHandle

from hard_ray.config.runtime import RuntimeConfig
from hard_ray.distillation.teacher import TeacherSpec
from hard_ray.orchestration.cluster.demand import replica_resources
from hard_ray.orchestration.pool.client import PoolAddress
from hard_ray.orchestration.pool.replica import JoiningReplica, Replica
from hard_ray.orchestration.pool.sizing import Board, LoadFollower, PoolSizer

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class PoolServer:
    """The pool's actors, which end with the process that started them."""

    address: PoolAddress
    actors: list[ActorHandle[Any]] = field(default_factory=list)
    """The replicas of a pool of constant size."""
    sizer: PoolSizer | None = None
    """Holds the replicas of a pool whose size follows the load."""

    def stop(self) -> None:
        """End every replica."""
        if self.sizer is not None:
            self.sizer.close()
        for actor in self.actors:
            ray.kill(actor, no_restart=True)


@dataclass(frozen=True, slots=True)
class ReplicaStarter:
    """Starts replicas, at the beginning and when the pool grows."""

    spec: TeacherSpec
    runtime: RuntimeConfig
    namespace: str

    def __call__(self, name: str) -> ActorHandle[Any]:
        """Start a replica and return at once; its first request loads the network."""
        teacher, wanted = self.runtime.teacher, replica_resources(self.runtime)
        options: dict[str, Any] = {
            "name": name,
            "namespace": self.namespace,
            "num_cpus": wanted.pop("CPU"),
            "num_gpus": wanted.pop("GPU", 0.0),
            "resources": wanted,
            "scheduling_strategy": "SPREAD" if self.runtime.placement_strategy == "spread" else "DEFAULT",
            "max_restarts": -1,  # Ray replaces a replica that died, on another node if need be
            "max_task_retries": 0,  # the client resends, to any replica
            "enable_task_events": False,  # Ray's controller would keep an event for every request
        }
        made: Any
        if teacher.max_batch is None:
            made = ray.remote(Replica).options(**options).remote(self.spec)
        else:
            options["max_concurrency"] = 1000
            joining = ray.remote(JoiningReplica).options(**options)
            made = joining.remote(self.spec, max_batch=teacher.max_batch, max_wait_ms=teacher.max_wait_ms)
        started: ActorHandle[Any] = made
        return started


def start_pool(
    spec: TeacherSpec, runtime: RuntimeConfig, *, namespace: str, say: Callable[[str], None] = logger.info
) -> PoolServer:
    """Start the replicas and return at once; their first requests load the network.

    `namespace` is Ray's for the replicas' names; `say` is called when the pool grows or shrinks.
    """
    teacher = runtime.teacher
    start = ReplicaStarter(spec, runtime, namespace)
    names = tuple(f"teacher-{number}" for number in range(teacher.replicas))
    actors = [start(name) for name in names]
    address = PoolAddress(namespace, names, teacher.max_in_flight, teacher.timeout_s, transport=teacher.transport)
    if teacher.max_replicas is None:
        return PoolServer(address, actors)
    board: Any = ray.remote(Board).options(name="board", namespace=namespace, num_cpus=0, max_restarts=-1).remote(names)
    decide = LoadFollower(teacher.least, teacher.max_replicas)
    sizer = PoolSizer(start, board, dict(zip(names, actors, strict=True)), decide, say=say)
    sizer.start()
    return PoolServer(dataclasses.replace(address, board="board"), sizer=sizer)
