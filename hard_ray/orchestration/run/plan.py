"""What the driver decides and the workers are told: plain facts that travel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hard_ray.config.run import RunConfig
from hard_ray.distillation.teacher import TeacherSpec
from hard_ray.orchestration.cluster.demand import DataShares
from hard_ray.orchestration.pool.client import PoolAddress

Role = Literal["teacher", "control", "main"]


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One training: the main one, a control, or the teacher's."""

    name: str
    role: Role
    config: RunConfig
    folder: Path

    @property
    def asks_teacher(self) -> bool:
        """Whether the objective needs the teacher, or its answers are compared with."""
        return self.role != "teacher"


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """What every student worker is told: the trainings to make, one after the other."""

    runs: tuple[RunPlan, ...]
    teacher: TeacherSpec | None
    """None: nothing is asked of a teacher, and there is none to compare with."""
    pool: PoolAddress | None
    """None: every worker holds the teacher itself."""
    data: DataShares
    stop: Path
    """A file whose presence asks whichever training is going on to end, with a checkpoint."""
    teacher_identity: str | None = None
    """Whom a new training must learn from; None: whoever answers first."""
    group_note: Path | None = None
    """Where the first worker writes which placement group it is in; None: nowhere."""
