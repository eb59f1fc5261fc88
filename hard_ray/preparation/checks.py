"""Checks of a run before a cluster starts: data and both networks."""

from __future__ import annotations

from hard_ray.augmentors.build import build_augmentor
from hard_ray.config.run import RunConfig
from hard_ray.data.generated_set import generated_for
from hard_ray.data.index import ImageIndex
from hard_ray.data.schedule import train_schedule
from hard_ray.data.sources.build import build_index
from hard_ray.distillation.optimisers import build_optimizer
from hard_ray.evaluation.suites import check_suites
from hard_ray.networks.network import Network, build_student, build_teacher, image_spec


def examine(config: RunConfig, *, role: str = "student") -> tuple[ImageIndex, Network, Network]:
    """Check suites, data and networks before anything is started; messages call the trained network by its `role`.

    Raises HardrayError if they cannot be used as configured.
    """
    check_suites(config.validation.at_the_end)
    index = build_index(config.data)
    images = image_spec(config.data, index.classes)
    student = build_student(config.student, images, role=role)
    if config.teacher.has_weights:
        teacher = build_teacher(config.teacher, images)
    else:
        teacher = build_student(config.teacher, images, role="teacher")
    build_optimizer(student, config.optim)
    build_augmentor(config.augmentor, in_chans=config.data.in_chans, img_size=config.data.img_size)
    generated_for(config.augmentor, index)
    train_schedule(index, config.data, batch_size=config.optim.batch_size, seed=config.seed)
    return index, student, teacher
