"""Checks of a run before a cluster starts: data, both networks, and the ways in which they are trained."""

from __future__ import annotations

from hard_ray.augmentors.build import build_augmentor
from hard_ray.config.augmentor import PolicyOperations, parts_of
from hard_ray.config.optim import OptimConfig
from hard_ray.config.run import RunConfig, asks_teacher, asks_tokens, embeds
from hard_ray.config.teacher_training import teacher_training
from hard_ray.data.augment import check_augment
from hard_ray.data.generated_set import GeneratedImages, generated_for
from hard_ray.data.index import ImageIndex
from hard_ray.data.sources.build import build_index, cache_of
from hard_ray.distillation.optimisers import build_optimizer
from hard_ray.errors import DataError
from hard_ray.evaluation.suites import check_suites
from hard_ray.networks.embedding import build_projected, build_tower, check_projection, dimension_of, layout_of
from hard_ray.networks.forward import check_forward
from hard_ray.networks.network import ImageSpec, Network, build_student, build_teacher, image_spec
from hard_ray.networks.training_modes import batch_norms
from hard_ray.preparation.answers import answered_index

BLOCKS = {"student": "optim", "teacher": "teacher.recipe"}
"""The block of the configuration that says how the network of a role is trained."""


def examine(config: RunConfig, *, role: str = "student") -> tuple[ImageIndex, Network, Network]:
    """Check suites, data and networks before anything is started; messages call the trained network by its `role`.

    Raises HardrayError if they cannot be used as configured.
    """
    check_suites(config.validation.at_the_end)
    check_augment(config.data)
    index = _index(config)
    images = image_spec(config.data, index.classes)
    check_batch(index, config.optim, block=BLOCKS[role])
    student, teacher = _embedders(config, images) if embeds(config) else _classifiers(config, images, role=role)
    if trains_teacher(config):
        recipe = teacher_training(config).optim
        check_batch(index, recipe, block=BLOCKS["teacher"])
        build_optimizer(teacher, recipe, block=BLOCKS["teacher"])
    build_augmentor(config.augmentor, in_chans=config.data.in_chans, img_size=config.data.img_size)
    generated = generated_for(config.augmentor, index, cache_of(config.runtime))
    if generated is not None:
        check_generated(generated, index)
    return index, student, teacher


def _index(config: RunConfig) -> ImageIndex:
    if embeds(config):
        return build_index(config.data, cache=cache_of(config.runtime))
    return answered_index(config.data, config.teacher, config.runtime)


def _classifiers(config: RunConfig, images: ImageSpec, *, role: str) -> tuple[Network, Network]:
    """Student and teacher, checked; raises ModelError if one of them cannot be used."""
    student = build_student(config.student, images, role=role)
    build_optimizer(student, config.optim, block=BLOCKS[role])
    check_forward(student, config.student, images, role=role)
    if config.teacher.has_weights:
        teacher = build_teacher(config.teacher, images)
    else:
        teacher = build_student(config.teacher, images, role="teacher")
    if config.teacher.has_weights or asks_teacher(config):
        check_forward(teacher, config.teacher, images, role="teacher")
    return student, teacher


def _embedders(config: RunConfig, images: ImageSpec) -> tuple[Network, Network]:
    """The student with its projection, and the teacher without its class head, or with it if it is still to be trained.

    Both answer with their tokens too, if the objective asks for them; the teacher does not before it is trained. Raises
    ModelError if one of them cannot be used.
    """
    with_tokens = asks_tokens(config)
    if config.teacher.has_weights:
        teacher = build_tower(config.teacher, images, with_tokens=with_tokens)
        dimension = dimension_of(teacher, images)
        values = dimension if teacher.tokens is None else teacher.tokens.layout.size
        check_forward(teacher, config.teacher, images, role="teacher", outputs=values)
    else:
        teacher = build_student(config.teacher, images, role="teacher")
        check_forward(teacher, config.teacher, images, role="teacher")
        dimension = dimension_of(teacher, images)
    layout = layout_of(teacher, config.teacher, images) if with_tokens else None
    student = build_projected(config.student, images, dimension, layout=layout)
    build_optimizer(student, config.optim, block=BLOCKS["student"])
    values = dimension if layout is None else layout.size
    check_forward(student, config.student, images, role="student", outputs=values)
    check_projection(student, config.student.model, images)
    return student, teacher


def training_notes(config: RunConfig, network: Network) -> list[str]:
    """What the way of training does to a network, beyond what its keys say, a sentence each."""
    parts, norms = config.optim.accumulate, batch_norms(network.model)
    if parts == 1 or not norms or network.norms_rest:
        return []
    images = config.optim.batch_size // config.runtime.num_workers / parts
    return [
        f"optim.accumulate {parts}: BatchNorm sees micro-batches of {images:.3g} images, so that an update is not that "
        "of the whole batch, as it is without BatchNorm or with student.freeze_bn"
    ]


def augmentor_notes(config: RunConfig) -> list[str]:
    """Operations of a policy that are left out because of the images, a sentence for each policy."""
    channels = config.data.in_chans
    policies = [part for part in parts_of(config.augmentor) if isinstance(part, PolicyOperations)]
    return [
        f"{part.kind}: saturation and hue are left out, as they need 3 channels and data.in_chans is {channels}"
        for part in policies
        if channels != 3 and (part.max_saturation > 1.0 or part.max_hue > 0.0)
    ]


def trains_teacher(config: RunConfig) -> bool:
    """Whether the run trains its teacher first, unless one of the same recipe is in the cache."""
    return asks_teacher(config) and not config.teacher.has_weights


def check_batch(index: ImageIndex, optim: OptimConfig, *, block: str) -> None:
    """Raise a DataError if a batch is larger than the training split."""
    images = len(index.rows("train"))
    if optim.batch_size > images:
        raise DataError(
            f"{block}.batch_size {optim.batch_size} is larger than the training split of {images} images; use a "
            f"smaller batch: {block}.batch_size={images} at most"
        )


def check_generated(generated: GeneratedImages, index: ImageIndex) -> None:
    """Raise a DataError if training images have no generated one, beyond those that were unreadable then."""
    rows = index.rows("train")
    missing = rows[generated.place[rows] < 0]
    if len(missing) > generated.unreadable:
        raise DataError(
            f"augmentor.path {generated.folder}: has no image for {len(missing):,} of {len(rows):,} training images, "
            f"first {index.reader.name(int(missing[0]))}; want one for each; make them with `hardray generate --split "
            "train`"
        )
