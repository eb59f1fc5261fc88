"""The teacher pool: actors that host the frozen teacher. `pool_client` is how a worker asks them."""

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
    """The pool's actors, owned by the process that started them: they end with it."""

    address: PoolAddress
    actors: list[ActorHandle[Any]] = field(default_factory=list)
    """Where they are always the same."""
    sizer: PoolSizer | None = None
    """Where their number follows the load."""

    def stop(self) -> None:
        """End every replica."""
        if self.sizer is not None:
            self.sizer.close()
        for actor in self.actors:
            ray.kill(actor, no_restart=True)


@dataclass(frozen=True, slots=True)
class ReplicaStarter:
    """Starts replicas, the first ones and those that come later."""

    spec: TeacherSpec
    runtime: RuntimeConfig
    namespace: str

    def __call__(self, name: str) -> ActorHandle[Any]:
        """Start one; returns at once, it loads its network with the first request."""
        teacher, wanted = self.runtime.teacher, replica_resources(self.runtime)
        options: dict[str, Any] = {
            "name": name,
            "namespace": self.namespace,
            "num_cpus": wanted.pop("CPU"),
            "num_gpus": wanted.pop("GPU", 0.0),
            "resources": wanted,
            "scheduling_strategy": "SPREAD" if self.runtime.placement_strategy == "spread" else "DEFAULT",
            "max_restarts": -1,  # Ray replaces a replica that died, on another node if need be
            "max_task_retries": 0,  # the client resends, to whichever replica answers
            "enable_task_events": False,  # a request is no news, and Ray's controller keeps what it is told
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
    """Start the replicas; returns at once, they load their network with the first request.

    Args:
        spec: what each replica becomes.
        runtime: how many, what is reserved for each, and whether their number follows the load.
        namespace: Ray namespace of the replicas' names.
        say: hears when the pool grows or shrinks.
    """
    teacher = runtime.teacher
    start = ReplicaStarter(spec, runtime, namespace)
    names = tuple(f"teacher-{number}" for number in range(teacher.replicas))
    actors = [start(name) for name in names]
    address = PoolAddress(namespace, names, teacher.max_in_flight, teacher.timeout_s)
    if teacher.max_replicas is None:
        return PoolServer(address, actors)
    board: Any = ray.remote(Board).options(name="board", namespace=namespace, num_cpus=0, max_restarts=-1).remote(names)
    decide = LoadFollower(teacher.least, teacher.max_replicas)
    sizer = PoolSizer(start, board, dict(zip(names, actors, strict=True)), decide, say=say)
    sizer.start()
    return PoolServer(dataclasses.replace(address, board="board"), sizer=sizer)
