"""What a run or a search reserves of a cluster: known from its configuration, before Ray is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hard_ray.config.runtime import RuntimeConfig

DATA_CPUS = 1.0
"""Whole CPUs that Ray Data needs beyond all that is reserved; without one it waits for ever."""

STUDENT_SLOT, TEACHER_SLOT = "student_slot", "teacher_slot"
"""Custom resources by which a cluster says which nodes are for whom. Labels would not do: Ray Train's elastic workers
count the whole cluster as theirs."""

TRIAL_CPUS = 0.1
"""CPUs reserved for the driver of each trial of a search; it waits most of the time."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one run reserves, or a search with its trials."""

    needs: dict[str, tuple[int, dict[str, float]]]
    """How many there are, and what each of them needs, by who they are."""
    trials: int | None = None
    """Runs at the same time, trials of a search; None: one run."""

    @property
    def whose(self) -> str:
        """Who reserves it."""
        return "the run" if self.trials is None else "the search"

    @property
    def knobs(self) -> str:
        """What can be lowered."""
        fewer = "runtime.num_workers or runtime.teacher.replicas"
        return fewer if self.trials is None else f"concurrency, {fewer}"

    @property
    def parts(self) -> dict[str, dict[str, float]]:
        """Resources by who needs them."""
        return {
            who: {name: number * amount for name, amount in each.items()} for who, (number, each) in self.needs.items()
        }

    @property
    def bundles(self) -> list[dict[str, float]]:
        """Resources that have to be on one node, for each that needs some."""
        return [dict(each) for number, each in self.needs.values() for _ in range(number)]

    @property
    def total(self) -> dict[str, float]:
        """Resources of all parts together."""
        total: dict[str, float] = {}
        for part in self.parts.values():
            for name, amount in part.items():
                total[name] = total.get(name, 0.0) + amount
        return total


def amounts(resources: Mapping[str, float]) -> str:
    """Resources for a message: `1 CPU + 2 GPU`, without those of which nothing is reserved."""
    return " + ".join(f"{amount:g} {name}" for name, amount in resources.items() if amount)


def demand(runtime: RuntimeConfig, *, trials: int | None = None, least: bool = False) -> Demand:
    """What a run with this runtime reserves, and the CPU that Ray Data needs beside it.

    Args:
        runtime: of the run.
        trials: so many runs at the same time, trials of a search, which share the teacher pool; None: one run.
        least: what it cannot begin without, where workers or replicas may be fewer.
    """
    runs = trials or 1
    workers = runs * (runtime.least_workers if least else runtime.num_workers)
    needs = {
        "student workers": (workers, worker_resources(runtime)),
        "Ray Data": (runs, {"CPU": DATA_CPUS}),
    }
    if trials is not None:
        needs["trial drivers"] = (trials, {"CPU": TRIAL_CPUS})
    teacher = runtime.teacher
    if teacher.placement == "pool":
        needs["teacher pool"] = (teacher.least if least else teacher.replicas, replica_resources(runtime))
    return Demand(needs, trials)


def worker_resources(runtime: RuntimeConfig) -> dict[str, float]:
    """What Ray reserves for each student worker."""
    return _reserved(runtime.cpus_per_worker, runtime.gpus_per_worker, STUDENT_SLOT if runtime.slots else None)


def replica_resources(runtime: RuntimeConfig) -> dict[str, float]:
    """What Ray reserves for each teacher replica of a pool."""
    return _reserved(runtime.teacher.num_cpus, runtime.teacher.num_gpus, TEACHER_SLOT if runtime.slots else None)


def _reserved(cpus: float, gpus: float | None, slot: str | None) -> dict[str, float]:
    return {"CPU": cpus, **({"GPU": gpus} if gpus else {}), **({slot: 1.0} if slot else {})}


@dataclass(frozen=True, slots=True)
class DataShares:
    """What the Ray Data executions of all workers may use together."""

    cpus: float
    object_store_bytes: float


@dataclass(frozen=True, slots=True)
class DataShare:
    """What one rank's Ray Data executions may use."""

    cpus: float
    object_store_bytes: float
