"""The resources that a run or a search reserves, computed from its configuration before Ray is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hard_ray.config.runtime import RuntimeConfig

DATA_CPUS = 1.0
"""Whole CPUs that Ray Data needs beside all that is reserved; without one it waits forever."""

STUDENT_SLOT, TEACHER_SLOT = "student_slot", "teacher_slot"
"""Custom resources that mark nodes for students or for teachers. Labels would not do: Ray Train's elastic workers count
the whole cluster as theirs."""

TRIAL_CPUS = 0.1
"""CPUs reserved for the driver of each trial of a search; it waits most of the time."""


@dataclass(frozen=True, slots=True)
class Demand:
    """The resources of one run, or of a search with its trials."""

    needs: dict[str, tuple[int, dict[str, float]]]
    """For each kind of process: how many there are, and the resources of each."""
    trials: int | None = None
    """The number of simultaneous trials of a search; None: one run."""

    @property
    def whose(self) -> str:
        """The subject of messages: the run or the search."""
        return "the run" if self.trials is None else "the search"

    @property
    def knobs(self) -> str:
        """The settings that lower the demand, for messages."""
        fewer = "runtime.num_workers or runtime.teacher.replicas"
        return fewer if self.trials is None else f"concurrency, {fewer}"

    @property
    def parts(self) -> dict[str, dict[str, float]]:
        """The total resources of each kind of process."""
        return {
            who: {name: number * amount for name, amount in each.items()} for who, (number, each) in self.needs.items()
        }

    @property
    def bundles(self) -> list[dict[str, float]]:
        """The resources of every single process, which have to be on one node."""
        return [dict(each) for number, each in self.needs.values() for _ in range(number)]

    @property
    def total(self) -> dict[str, float]:
        """The resources of all processes together."""
        total: dict[str, float] = {}
        for part in self.parts.values():
            for name, amount in part.items():
                total[name] = total.get(name, 0.0) + amount
        return total


def amounts(resources: Mapping[str, float]) -> str:
    """Resources for a message, such as `1 CPU + 2 GPU`, without zeros."""
    return " + ".join(f"{amount:g} {name}" for name, amount in resources.items() if amount)


def demand(runtime: RuntimeConfig, *, trials: int | None = None, least: bool = False) -> Demand:
    """The resources of a run with this runtime, including the CPU that Ray Data needs.

    `trials` is the number of simultaneous trials of a search, which share the teacher pool; None: one run. With
    `least`, the fewest workers and replicas are counted with which the run can begin.
    """
    runs = trials or 1
    workers = runs * (runtime.least_workers if least else runtime.num_workers)
    needs = {"student workers": (workers, worker_resources(runtime)), "Ray Data": (runs, {"CPU": DATA_CPUS})}
    if trials is not None:
        needs["trial drivers"] = (trials, {"CPU": TRIAL_CPUS})
    teacher = runtime.teacher
    if teacher.placement == "pool":
        needs["teacher pool"] = (teacher.least if least else teacher.replicas, replica_resources(runtime))
    return Demand(needs, trials)


def worker_resources(runtime: RuntimeConfig) -> dict[str, float]:
    """The resources of each student worker."""
    return _reserved(runtime.cpus_per_worker, runtime.gpus_per_worker, STUDENT_SLOT if runtime.slots else None)


def replica_resources(runtime: RuntimeConfig) -> dict[str, float]:
    """The resources of each teacher replica of a pool."""
    return _reserved(runtime.teacher.num_cpus, runtime.teacher.num_gpus, TEACHER_SLOT if runtime.slots else None)


def _reserved(cpus: float, gpus: float | None, slot: str | None) -> dict[str, float]:
    return {"CPU": cpus, **({"GPU": gpus} if gpus else {}), **({slot: 1.0} if slot else {})}


@dataclass(frozen=True, slots=True)
class DataShare:
    """Resources for Ray Data executions: those of one rank, or of all workers of a run together."""

    cpus: float
    object_store_bytes: float
