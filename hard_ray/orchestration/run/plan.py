"""Plans: plain data that the driver sends to the workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hard_ray.config.run import RunConfig
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.data.index import ImageIndex
from hard_ray.distillation.teacher import TeacherSpec
from hard_ray.files import beginning, write_text
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
        """Whether the objective or an evaluation needs the teacher."""
        return self.role != "teacher"


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """Instructions to every student worker: trainings to run one after the other."""

    runs: tuple[RunPlan, ...]
    teacher: TeacherSpec | None
    """None: neither training nor evaluation uses a teacher."""
    pool: PoolAddress | None
    """None: every worker holds the teacher itself."""
    data: DataShare
    stop: Path
    """A file whose presence asks the present training to write a checkpoint and end."""
    teacher_identity: str | None = None
    """Identity of the teacher that a new training must have; None: of whichever answers first."""
    group_note: Path | None = None
    """File in which the first worker notes its placement group; None: no file."""
    url: str | None = None
    """The URL that the run's folder is kept at: every node has a copy of its own. None: all nodes see the folders."""
    owner: str | None = None
    """The name under which the driver holds the URL's lock."""


def write_configs(folder: RunFolder, index: ImageIndex, runs: tuple[RunPlan, ...]) -> None:
    """Make the folder that of a run: class names, and the configuration of each training, the last one's at the end.

    A run that has begun keeps its configurations. Errors are found before this, so that they leave the folder as it
    was. Raises RunFolderError if the folder cannot be written.
    """
    has_begun = RunFolder(runs[-1].folder).config.exists()
    with beginning(folder.path):
        write_text(folder.classes, "".join(f"{name}\n" for name in index.classes))
        for run in runs:
            run.folder.mkdir(parents=True, exist_ok=True)
            if not (has_begun and RunFolder(run.folder).config.exists()):
                write_text(RunFolder(run.folder).config, dump_yaml(run.config))
