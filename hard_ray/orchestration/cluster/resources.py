"""The resources of a cluster, whether they suffice, and settings that follow from its hardware."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources

from hard_ray.config.run import RunConfig
from hard_ray.config.runtime import RuntimeConfig
from hard_ray.errors import ClusterError
from hard_ray.orchestration.cluster.demand import (
    DATA_CPUS,
    STUDENT_SLOT,
    TEACHER_SLOT,
    DataShare,
    Demand,
    amounts,
    demand,
)
from hard_ray.orchestration.cluster.hardware import Hardware, probe

NODES_LOOK_S = 1.0
"""Seconds between looks of a run that waits for nodes."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster that this process is connected to."""

    is_own: bool
    """Whether it was started for this run, on this machine."""
    resources: dict[str, float]


def slots_of(reserved: Demand) -> dict[str, float]:
    """The student and teacher slots of a cluster started for one run: as many as it reserves."""
    return {name: amount for name, amount in reserved.total.items() if name in (STUDENT_SLOT, TEACHER_SLOT)}


def check_demand(runtime: RuntimeConfig, cluster: Cluster, *, trials: int | None = None) -> None:
    """Raise a ClusterError if the cluster lacks reserved resources, before anything waits for them."""
    wanted = demand(runtime, trials=trials, least=True)
    if missing := _missing(wanted, cluster.resources):
        parts = "; ".join(f"{who}: {amounts(part)}" for who, part in wanted.parts.items())
        waited = f" within {runtime.nodes_timeout_s:g} s" if runtime.nodes_timeout_s and not cluster.is_own else ""
        raise ClusterError(
            f"{wanted.whose} reserves {missing}{waited}: {parts}; {_smaller(runtime, cluster, trials)}lower "
            f"{wanted.knobs}, or add nodes (where an autoscaler does, runtime.nodes_timeout_s waits for it)"
        )


def _smaller(runtime: RuntimeConfig, cluster: Cluster, trials: int | None) -> str:
    without = without_pool(runtime, cluster, trials=trials)
    if without is None:
        return ""
    return f"set runtime.teacher.placement=colocated, which fits ({amounts(without.total)}), or "


def without_pool(runtime: RuntimeConfig, cluster: Cluster, *, trials: int | None = None) -> Demand | None:
    """The demand if student workers hold the teacher themselves; None: there is no pool, or that does not fit either.

    It is the remedy for a cluster that is too small for a pool.
    """
    teacher = runtime.teacher.model_copy(update={"placement": "colocated", "max_replicas": None, "min_replicas": None})
    without = demand(runtime.model_copy(update={"teacher": teacher}), trials=trials, least=True)
    return None if runtime.teacher.placement != "pool" or _missing(without, cluster.resources) else without


def _missing(wanted: Demand, resources: Mapping[str, float]) -> str:
    return " and ".join(
        f"{amount:g} {name} (the cluster has {resources.get(name, 0.0):g})"
        for name, amount in wanted.total.items()
        if amount > resources.get(name, 0.0) + 1e-9
    )


def await_nodes(runtime: RuntimeConfig, trials: int | None, say: Callable[[str], None]) -> None:
    """Request the reserved resources from the autoscaler of a joined cluster; wait until the run can begin.

    The request ends with this function, because it would outlive a driver that is killed. Ray Train and the pool
    request the same resources again when they start.
    """
    if not runtime.nodes_timeout_s:
        return
    last, there = time.monotonic() + runtime.nodes_timeout_s, ray.cluster_resources()
    resolved = _resolve_gpus(runtime, Cluster(is_own=False, resources=there), trials or 1)
    least = demand(resolved, trials=trials, least=True)
    if not (missing := _missing(least, there)):
        return
    say(f"cluster: waiting up to {runtime.nodes_timeout_s:g} s for nodes; {least.whose} reserves {missing}")
    request_resources(bundles=demand(resolved, trials=trials).bundles)
    try:
        while _missing(least, ray.cluster_resources()) and time.monotonic() < last:
            time.sleep(NODES_LOOK_S)
    finally:
        request_resources(bundles=[])


def data_shares(runtime: RuntimeConfig, cluster: Cluster, *, trials: int | None = None) -> DataShare:
    """The resources that workers and teachers leave for Ray Data of one run; see `demand` for `trials`."""
    runs = trials or 1
    reserved = demand(runtime, trials=trials).total["CPU"] - runs * DATA_CPUS
    return DataShare(
        cpus=max(DATA_CPUS, (cluster.resources.get("CPU", 0.0) - reserved) / runs),
        object_store_bytes=0.5 * cluster.resources.get("object_store_memory", 2**30) / runs,
    )


def resolve_runtime(config: RunConfig, cluster: Cluster, *, trials: int | None = None) -> RunConfig:
    """Fill in settings that follow from the hardware; values of the user or of an earlier start stay.

    `trials` is as in `demand`. Raises ClusterError if the cluster lacks resources that the run reserves.
    """
    runs = trials or 1
    reserved = _resolve_gpus(config.runtime, cluster, runs)
    check_demand(reserved, cluster, trials=trials)
    return config.model_copy(update={"runtime": _resolve_kernels(reserved, cluster, runs)})


def resolve_compilation(config: RunConfig, say: Callable[[str], None]) -> RunConfig:
    """Turn torch.compile off, and say so, if a machine that student workers will run on makes no compiled code.

    It is tried there, where a configuration asks for it. `config` is resolved otherwise.
    """
    runtime = config.runtime
    if not runtime.compile and not runtime.teacher.compile:
        return config
    problem = remote_compiler_problem(runtime.gpus_per_worker or 0.0)
    if problem is None:
        return config
    say(f"torch.compile makes no code here, so runtime.compile and runtime.teacher.compile are off ({problem})")
    teacher = runtime.teacher.model_copy(update={"compile": False})
    return config.model_copy(update={"runtime": runtime.model_copy(update={"compile": False, "teacher": teacher})})


def remote_compiler_problem(num_gpus: float) -> str | None:
    """Why torch.compile makes no code on a machine that student workers will run on; None: it does."""
    from hard_ray.networks.compilation import toolchain_problem

    return ray.get(ray.remote(toolchain_problem).options(num_cpus=0, num_gpus=num_gpus).remote())


def _resolve_gpus(runtime: RuntimeConfig, cluster: Cluster, runs: int = 1) -> RuntimeConfig:
    """Use GPUs if the cluster has them; if they are few, a worker and a teacher share one."""
    there, workers = cluster.resources.get("GPU", 0.0), runs * runtime.num_workers
    replicas = runtime.teacher.replicas if runtime.teacher.placement == "pool" else 0
    shared = replicas > 0 and not runtime.slots and workers <= there < workers + replicas  # slots: nodes of their own
    gpus = _chosen(runtime.gpus_per_worker, 0.0 if not there else 0.5 if shared else 1.0)
    left = there - workers * gpus  # none if a worker is set to take a whole one
    per_replica = min(1.0, int(100 * left / replicas) / 100) if shared and left > 0 else 1.0
    for_teacher = _chosen(runtime.teacher.num_gpus, per_replica if gpus and replicas else 0.0)
    teacher = runtime.teacher.model_copy(update={"num_gpus": for_teacher})
    return runtime.model_copy(update={"gpus_per_worker": gpus, "teacher": teacher})


def _resolve_kernels(runtime: RuntimeConfig, cluster: Cluster, runs: int) -> RuntimeConfig:
    """Choose precision, memory layout and threads for the machine of the student workers."""
    gpus = runtime.gpus_per_worker or 0.0
    hardware = probe() if cluster.is_own and not gpus else remote_probe(gpus)
    dtype = hardware.fast_dtype(on_gpu=bool(gpus))
    threads = _threads(runtime, hardware, runs, is_own=cluster.is_own)
    amp_dtype = _chosen(runtime.amp_dtype, dtype)
    teacher = runtime.teacher.model_copy(
        update={"dtype": _chosen(runtime.teacher.dtype, dtype), "threads": _chosen(runtime.teacher.threads, threads)}
    )
    return runtime.model_copy(
        update={
            "amp_dtype": amp_dtype,
            "channels_last": _chosen(
                runtime.channels_last, hardware.prefers_channels_last(amp_dtype, on_gpu=bool(gpus))
            ),
            "threads": _chosen(runtime.threads, threads),
            "teacher": teacher,
        }
    )


def remote_probe(num_gpus: float) -> Hardware:
    """Read the capabilities of a machine that student workers will run on."""
    return ray.get(ray.remote(probe).options(num_cpus=0, num_gpus=num_gpus).remote())


def _threads(runtime: RuntimeConfig, hardware: Hardware, runs: int, *, is_own: bool) -> int:
    """The threads of a process: on a cluster its reserved CPUs, on one machine an equal part of the cores."""
    if not is_own:
        return max(1, int(runtime.cpus_per_worker))
    replicas = runtime.teacher.replicas if runtime.teacher.placement == "pool" else 0
    return max(1, hardware.cores // (runs * runtime.num_workers + replicas))


def _chosen(given: Any, otherwise: Any) -> Any:
    return otherwise if given is None else given
