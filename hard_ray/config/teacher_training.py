"""The training of a teacher as a run of its own, and the recipe for fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hard_ray.config.augmentor import IdentityAugmentor
from hard_ray.config.data import has_labels, why_unlabelled
from hard_ray.config.layers import Layer
from hard_ray.config.loader import load_config, validate
from hard_ray.config.networks import NetworkConfig, StudentConfig, TeacherConfig
from hard_ray.config.objective import CrossEntropyObjective
from hard_ray.config.optim import OptimConfig
from hard_ray.config.run import RunConfig, fitting_data
from hard_ray.config.safe_yaml import dump_yaml, parse_yaml
from hard_ray.errors import DataError


def teacher_training(config: RunConfig) -> RunConfig:
    """The run that trains the teacher: on labels only, with the teacher's recipe and its own seed."""
    recipe = config.teacher.recipe
    objective = CrossEntropyObjective(jsd=recipe.jsd)
    network = {name: getattr(config.teacher, name) for name in NetworkConfig.model_fields}
    return config.model_copy(
        update={
            "student": StudentConfig.model_validate({**network, "freeze": recipe.freeze}),
            "data": fitting_data(config, objective),
            "objective": objective,
            "augmentor": IdentityAugmentor(),
            "optim": OptimConfig.model_validate({name: getattr(recipe, name) for name in OptimConfig.model_fields}),
            "validation": config.validation.model_copy(update={"final": ()}),  # the main run measures the teacher
            "experiment": config.experiment.model_copy(update={"controls": (), "name": "teacher"}),
            "seed": recipe.seed,
        }
    )


def teacher_run(config: RunConfig) -> RunConfig:
    """`teacher_training`, or fine-tuning if the teacher has weights; ConfigError: the recipe does not fit the rest.

    Raises DataError if the images have no labels.
    """
    if not has_labels(config.data):
        raise DataError(
            f"{why_unlabelled(config.data)}, so that the images have no labels for a teacher to learn; give a frozen "
            "tower a head for them by `hardray fit-head --kind prototypes`, or name images with labels"
        )
    training = teacher_training(config)
    fine_tunes = config.teacher.has_weights
    run = training.model_copy(
        update={
            "data": config.data.model_copy(update={"unlabelled": None}),
            "teacher": TeacherConfig(),  # unused: the objective is cross-entropy with the labels
            "student": training.student.model_copy(update={"new_head": fine_tunes}),
            "validation": config.validation,
            "experiment": training.experiment.model_copy(update={"name": config.experiment.name}),
        }
    )
    return validate([parse_yaml(dump_yaml(run), "teacher.recipe")], source="teacher.recipe")


FINE_TUNING: Layer = {
    "opt": "adamw",
    "lr": 1e-4,
    "weight_decay": 0.05,
    "sched": "cosine",
    "epochs": 10.0,
    "warmup_epochs": 1.0,
    "warmup_lr": 1e-6,
    "smoothing": 0.0,
}
"""Values of `teacher.recipe` for a teacher with weights.

AdamW, its weight decay, the cosine schedule and the warm-up are those with which timm's pretrained models are
fine-tuned; the learning rate is a twentieth of the one for training from scratch. Unlike timm, no label smoothing: a
teacher that learned from smoothed labels teaches worse (Müller et al. 2019, arXiv:1906.02629, section 5).
"""


def load_teacher_config(
    files: Sequence[Path] = (),
    *,
    preset: str | None = None,
    overrides: Sequence[str] = (),
    defaults: Layer | None = None,
) -> RunConfig:
    """Merge and validate as `load_config`; the recipe of a teacher with weights starts from FINE_TUNING.

    FINE_TUNING lies above the preset, whose recipe trains from scratch, and below the files.

    Raises:
        ConfigError: every mistake found, in one message.
    """
    config = load_config(files, preset=preset, overrides=overrides, defaults=defaults)
    if not config.teacher.has_weights:
        return config
    beneath = {"teacher": {"recipe": FINE_TUNING}}
    return load_config(files, preset=preset, overrides=overrides, beneath=beneath, defaults=defaults)
