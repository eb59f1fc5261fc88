"""The memory that a run on this machine needs at least, compared with what it may have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from hard_ray.config.run import RunConfig, asks_teacher
from hard_ray.orchestration.cluster.cgroups import limits
from hard_ray.orchestration.cluster.hardware import usable_memory_gib

CLUSTER_GIB = 1.9
"""Memory of the command, Ray's own processes, and Ray Train's controller and helpers; measured without shared pages."""

PROCESS_GIB = 0.4
"""Memory of a process that has imported torch, before it holds a network."""

BLOCKS = 8
"""Blocks of images that a worker's stream keeps in the object store."""

STATES = 4
"""Weights, gradients and the two averages of Adam."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The parts of a run's memory in GiB; activations, which depend on kernels, come on top."""

    parts: dict[str, float]

    @property
    def total(self) -> float:
        """All parts together."""
        return sum(self.parts.values())

    @property
    def text(self) -> str:
        """The parts for a message."""
        return ", ".join(f"{name} {amount:.1f}" for name, amount in self.parts.items())


def memory_plan(config: RunConfig, student: nn.Module, teacher: nn.Module, *, trials: int = 1) -> MemoryPlan:
    """The memory of a run, or of a search with so many trials at a time; networks on a GPU take none of it."""
    runtime = config.runtime
    workers = trials * runtime.num_workers
    asks = asks_teacher(config)
    in_pool = asks and runtime.teacher.placement == "pool"
    on_cpu = runtime.gpus_per_worker == 0 or not torch.cuda.is_available()
    states = STATES + (1 if config.optim.model_ema else 0)
    learner = PROCESS_GIB + on_cpu * states * _gib(student)
    own_teacher = on_cpu * _gib(teacher) if asks and not in_pool else 0.0
    parts = {"Ray": CLUSTER_GIB + (trials - 1) * PROCESS_GIB, "student workers": workers * (learner + own_teacher)}
    if in_pool:
        parts["teacher pool"] = runtime.teacher.replicas * (PROCESS_GIB + on_cpu * _gib(teacher))
    if config.data.augment is not None:  # Ray Data's processes import torch and timm for it alone
        parts["timm's transforms"] = trials * PROCESS_GIB
    parts["blocks of images"] = workers * BLOCKS * runtime.data_block_mb / 1024
    return MemoryPlan(parts)


def shortage(plan: MemoryPlan, *, there: float | None = None) -> str | None:
    """A sentence if the plan exceeds the memory of this machine or its control group; None if it fits."""
    has = usable_memory_gib() if there is None else there
    if plan.total <= has:
        return None
    whose = "its control group allows" if limits().memory_bytes is not None else "the machine has"
    return (
        f"memory: the run needs about {plan.total:.1f} GiB and activations ({plan.text}), and {whose} {has:.1f}; the "
        "system may kill its processes: lower runtime.num_workers, runtime.teacher.replicas or runtime.data_block_mb, "
        "set runtime.teacher.placement=colocated, take smaller networks, or allow more memory"
    )


def _gib(network: nn.Module) -> float:
    return sum(parameter.numel() * parameter.element_size() for parameter in network.parameters()) / 2**30
