"""Put the parts of an update together, as a run's configuration says."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer

from hard_ray.augmentors.build import build_augmentor
from hard_ray.augmentors.main_mix import MainMix
from hard_ray.config.augmentor import PickAugmentor
from hard_ray.config.controller import part_of
from hard_ray.config.data import labelled_share
from hard_ray.config.objective import EmbeddingObjective, HardObjective, ObjectiveConfig
from hard_ray.config.run import RunConfig
from hard_ray.distillation.embedding import COSINE, EmbeddingAugmentorObjective
from hard_ray.distillation.loss_scale import LossScale
from hard_ray.distillation.objectives import AugmentorLoss, AugmentorObjective, StudentObjective
from hard_ray.distillation.optimisers import Clipping
from hard_ray.distillation.phases import Learner
from hard_ray.distillation.step import Updater
from hard_ray.distillation.teacher import TeacherPool
from hard_ray.maths.tokens import EmbeddingDistance
from hard_ray.networks.network import Network
from hard_ray.networks.precision import DTYPES, Precision
from hard_ray.ranks import Ranks


def student_precision(config: RunConfig, device: torch.device) -> Precision:
    """Type and memory layout of the student's kernels; float32 where the configuration leaves it open."""
    runtime = config.runtime
    return Precision(device, DTYPES[runtime.amp_dtype or "float32"], bool(runtime.channels_last))


def batch_sizes(config: RunConfig) -> tuple[int, ...]:
    """Sizes of the batches about which a run asks networks at rest: those that are worth compiling for.

    The images of an update on one worker, as often as the augmentor draws candidates; its part in an augmentor update;
    and a full batch of an evaluation. The first is that of an update on the first worker of all.
    """
    batch, runtime = config.optim.batch_size, config.runtime
    worlds = range(runtime.num_workers, runtime.least_workers - 1, -1)
    local = [(rank + 1) * batch // world - rank * batch // world for world in worlds for rank in range(world)]
    draws = {1, config.augmentor.pool} if isinstance(config.augmentor, PickAugmentor) else {1}
    sizes = [count * size for size in local for count in sorted(draws) if size]
    parts = [part_of(size, config.controller.augmentor_share) for size in local if size]
    return tuple(dict.fromkeys([*sizes, *parts, config.validation.batch_size]))


def views_learned(config: RunConfig) -> int:
    """How many views of each image a student update learns from in one forward pass."""
    has_second_view = config.augmentor.kind != "identity"
    objective = StudentObjective(config.objective, has_second_view=has_second_view)
    return 2 if has_second_view and objective.learns_clean else 1


def build_learner(
    config: RunConfig,
    network: nn.Module,
    optimizer: Optimizer,
    *,
    device: torch.device,
    student: nn.Module | None = None,
) -> Learner:
    """What the updates of a run change; its augmentor is made here, with weights of the present seed.

    `student` is the network as a student update calls it, wrapped for several ranks; None: as it is.
    """
    augmentor = build_augmentor(config.augmentor, in_chans=config.data.in_chans, img_size=config.data.img_size)
    groups = [] if augmentor is None else augmentor.to(device).parameter_groups()
    return Learner(
        student=network if student is None else student,
        network=network,
        optimizer=optimizer,
        augmentor=augmentor,
        augmentor_optimizer=torch.optim.AdamW(groups) if groups else None,
        loss_scale=LossScale.of(student_precision(config, device)),
    )


def build_updater(
    config: RunConfig,
    learner: Learner,
    pool: TeacherPool | None,
    *,
    device: torch.device,
    ranks: Ranks,
    share: float = 1.0,
) -> Updater:
    """What makes the updates of a run; `share` is this rank's images over the mean of all ranks."""
    objective = config.objective
    has_second_view = config.augmentor.kind != "identity"
    distance = distance_of(objective, learner.network)
    return Updater(
        learner,
        StudentObjective(
            objective,
            smoothing=config.optim.smoothing,
            has_second_view=has_second_view,
            labelled=labelled_share(config.data, config.optim.batch_size),
            distance=distance,
        ),
        pool=pool,
        precision=student_precision(config, device),
        ranks=ranks,
        seed=config.seed,
        augmentation=_augmentor_loss(objective, distance),
        mix=None if config.data.mix is None else MainMix(config.data.mix),
        clipping=Clipping.of(config.optim),
        accumulate=config.optim.accumulate,
        round_pixels=config.runtime.teacher.wire_dtype == "uint8",
        share=share,
        augmentor_part=config.controller.augmentor_share,
    )


def distance_of(objective: ObjectiveConfig, network: nn.Module) -> EmbeddingDistance:
    """The distance of embeddings, with the tokens that the student answers with if it does."""
    if not isinstance(objective, EmbeddingObjective) or not isinstance(network, Network) or network.tokens is None:
        return COSINE
    return EmbeddingDistance(objective.w_tokens, network.tokens.layout)


def _augmentor_loss(objective: ObjectiveConfig, distance: EmbeddingDistance) -> AugmentorLoss | None:
    """The loss of an augmentor that learns; None: the objective trains none."""
    match objective:
        case HardObjective() as c:
            return AugmentorObjective(c.temperature, c.lambda_s, c.lambda_t, c.cap, c.measure)
        case EmbeddingObjective() as c:
            return EmbeddingAugmentorObjective(c.lambda_s, c.lambda_t, c.cap, distance)
        case _:
            return None
