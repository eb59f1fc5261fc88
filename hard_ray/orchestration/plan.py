"""What the driver decides and the workers are told: plain facts that travel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hard_ray.config.augmentor import IdentityAugmentor
from hard_ray.config.loader import dump_yaml, parse_yaml, validate
from hard_ray.config.networks import NetworkConfig, StudentConfig, TeacherConfig
from hard_ray.config.objective import CrossEntropyObjective
from hard_ray.config.optim import OptimConfig
from hard_ray.config.run import RunConfig
from hard_ray.orchestration.pool_client import PoolAddress
from hard_ray.teacher import TeacherSpec

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
class DataShares:
    """What the Ray Data executions of all workers may use together."""

    cpus: float
    object_store_bytes: float


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


def teacher_training(config: RunConfig) -> RunConfig:
    """The run that trains the teacher: labels only, by the teacher's recipe and its own seed."""
    recipe = config.teacher.recipe
    network = {name: getattr(config.teacher, name) for name in NetworkConfig.model_fields}
    return config.model_copy(
        update={
            "student": StudentConfig.model_validate(network),
            "objective": CrossEntropyObjective(),
            "augmentor": IdentityAugmentor(),
            "optim": OptimConfig.model_validate({name: getattr(recipe, name) for name in OptimConfig.model_fields}),
            "validation": config.validation.model_copy(update={"final": ()}),  # the main run measures the teacher
            "experiment": config.experiment.model_copy(update={"controls": (), "name": "teacher"}),
            "seed": recipe.seed,
        }
    )


def teacher_run(config: RunConfig) -> RunConfig:
    """The teacher's training as a run of its own: what `teacher_training` trains, or weights fine-tuned by the recipe.

    Raises:
        ConfigError: the recipe does not fit the rest.
    """
    training = teacher_training(config)
    fine_tunes = config.teacher.has_weights
    run = training.model_copy(
        update={
            "teacher": TeacherConfig(),  # is asked nothing, because the objective is cross-entropy with the labels
            "student": training.student.model_copy(update={"new_head": fine_tunes}),
            "validation": config.validation,
            "experiment": training.experiment.model_copy(update={"name": config.experiment.name}),
        }
    )
    return validate([parse_yaml(dump_yaml(run), "teacher.recipe")], source="teacher.recipe")
