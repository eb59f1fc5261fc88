"""What the driver decides and the workers are told: plain facts that travel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hard_ray.config.run import RunConfig
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.data.index import ImageIndex
from hard_ray.distillation.teacher import TeacherSpec
from hard_ray.files import write_text
from hard_ray.orchestration.cluster.demand import DataShare
from hard_ray.orchestration.pool.client import PoolAddress
from hard_ray.runs.folder import RunFolder

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
    data: DataShare
    stop: Path
    """A file whose presence asks whichever training is going on to end, with a checkpoint."""
    teacher_identity: str | None = None
    """Whom a new training must learn from; None: whoever answers first."""
    group_note: Path | None = None
    """Where the first worker writes which placement group it is in; None: nowhere."""


def write_configs(folder: RunFolder, index: ImageIndex, runs: tuple[RunPlan, ...]) -> None:
    """Make the folder that of a run: class names, and the configuration of each training that has none yet.

    Errors are found before this, so that they leave the folder as it was.
    """
    write_text(folder.classes, "".join(f"{name}\n" for name in index.classes))
    for run in runs:
        run.folder.mkdir(parents=True, exist_ok=True)
        if not RunFolder(run.folder).config.exists():
            write_text(RunFolder(run.folder).config, dump_yaml(run.config))
