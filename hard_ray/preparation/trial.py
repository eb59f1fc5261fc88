"""Try the first updates of a run in this process, with its own data, networks, losses and optimisers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from hard_ray.config.controller import Phase
from hard_ray.config.run import RunConfig, asks_tokens, embeds, training_data
from hard_ray.config.teacher_training import teacher_training
from hard_ray.data.batch import Batch
from hard_ray.data.generated_set import generated_for
from hard_ray.data.index import ImageIndex
from hard_ray.data.pictures import TrainPictures, to_batch
from hard_ray.data.schedule import train_schedule
from hard_ray.data.sources.build import cache_of
from hard_ray.distillation.assembly import build_learner, build_updater
from hard_ray.distillation.optimisers import build_optimizer, build_scheduler
from hard_ray.distillation.step import Updater
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool
from hard_ray.errors import HardrayError, ModelError, readable
from hard_ray.networks.embedding import as_tower
from hard_ray.networks.network import Network, image_spec
from hard_ray.networks.precision import resting
from hard_ray.preparation.checks import BLOCKS, trains_teacher
from hard_ray.preparation.samples import SAMPLE, try_images
from hard_ray.ranks import Ranks

IMAGES, PIXELS = 4, 2**15
"""A tried batch has at most so many images, or as many small ones as have so many pixels together."""
LARGE = 100e6
"""Parameters of both networks together from which a tried batch has two images, and no update is repeated."""
SMALL = 2e6
"""Parameters of both networks together up to which one thread computes: more threads only wait for each other."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The first updates of a training, as they went."""

    images: int
    """Images in the batch."""
    loss: float
    """Of the student."""
    augmentor_loss: float | None
    """None where no augmentor learns."""
    student_s: float
    """Seconds of a student update on the student's side, for an image."""
    teacher_s: float
    """Seconds of a student update for the second view and the teacher's answers, for an image."""


def try_run(
    config: RunConfig, index: ImageIndex, student: Network, teacher: Network, *, role: str = "student"
) -> tuple[Trial, list[str]]:
    """Decode images of each split, and make the first updates of the student, the augmentor and an untrained teacher.

    Both networks are changed. Returns the student's trial and sentences about what was tried and found. Raises the
    HardrayError that the run would end with, by the key that it is about.
    """
    notes = try_images(config.data, index)
    parts = [f"{min(SAMPLE, *map(len, index.splits.values()))} images of each split decoded"]
    if trains_teacher(config):
        taught = try_training(teacher_training(config), index, teacher, None, role="teacher")
        parts.append(f"a teacher update by teacher.recipe (loss {taught.loss:.3g})")
    frozen = None
    if embeds(config) and trains_teacher(config):
        images = image_spec(config.data, index.classes)
        as_tower(teacher, config.teacher, images, with_tokens=asks_tokens(config))
    if config.objective.kind != "cross_entropy":
        frozen = FrozenNetwork(teacher, dtype=config.runtime.teacher.dtype or "float32")
    trial = try_training(config, index, student, frozen, role=role)
    parts.append(f"a {role} update of {trial.images} images (loss {trial.loss:.3g})")
    if trial.augmentor_loss is not None:
        parts.append(f"an augmentor update (loss {trial.augmentor_loss:.3g})")
    return trial, [", ".join(parts), *notes]


def try_training(
    config: RunConfig, index: ImageIndex, network: Network, teacher: FrozenNetwork | None, *, role: str
) -> Trial:
    """Make the first updates of a training with a small batch; raises HardrayError if they fail or diverge."""
    networks = [network] if teacher is None else [network, teacher.network]
    parameters = sum(parameter.numel() for each in networks for parameter in each.parameters())
    with _threads(1 if parameters <= SMALL else torch.get_num_threads()):
        return _try_updates(config, index, network, teacher, role=role, is_large=parameters > LARGE)


def _try_updates(
    config: RunConfig,
    index: ImageIndex,
    network: Network,
    teacher: FrozenNetwork | None,
    *,
    role: str,
    is_large: bool,
) -> Trial:
    """Make two updates of the network, of which the second one's time counts, and one of an augmentor that learns."""
    most = 2 if is_large else max(IMAGES, PIXELS // config.data.img_size**2)
    count = min(config.optim.batch_size // config.runtime.num_workers, most)
    with _explained(f"a {role} update of {count} images", role):
        updater = _updater(config, index, network, teacher, role)
        whole = config.optim.batch_size // config.runtime.num_workers
        updater.accumulate = max(1, config.optim.accumulate * count // whole)  # parts no smaller than the run's
        batch = _first_batch(config, index, count)
        loss = _update(updater, batch, Phase.STUDENT, role, step=0)
        if not is_large:  # the first update includes what is done once
            updater.clock.seconds.clear()
            _update(updater, batch, Phase.STUDENT, role, step=1)
    augmentor_loss = None
    if updater.learner.augmentor_optimizer is not None:
        with _explained("an augmentor update", role):
            augmentor_loss = _update(updater, batch, Phase.AUGMENTOR, role, step=2)
    seconds = updater.clock.seconds
    learning, teaching = seconds["student"], seconds["student_update"] - seconds["student"]
    return Trial(len(batch), loss, augmentor_loss, learning / len(batch), max(0.0, teaching) / len(batch))


def _updater(
    config: RunConfig, index: ImageIndex, network: Network, teacher: FrozenNetwork | None, role: str
) -> Updater:
    """What makes the updates, as a worker of the run builds it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device).train()
    learner = build_learner(config, network, build_optimizer(network, config.optim, block=BLOCKS[role]), device=device)
    per_epoch = len(index.rows("train")) // config.optim.batch_size
    total = config.optim.total_updates(per_epoch)
    scheduler = build_scheduler(learner.optimizer, config.optim, total=total, per_epoch=per_epoch)
    if scheduler is not None:
        scheduler.step_update(0)
    pool = None if teacher is None else LocalPool(teacher)
    return build_updater(config, learner, pool, device=device, ranks=Ranks())


def _first_batch(config: RunConfig, index: ImageIndex, count: int) -> Batch:
    """The first images of the run."""
    schedule = train_schedule(index, config.data, batch_size=config.optim.batch_size, seed=config.seed)
    generated = generated_for(config.augmentor, index, cache_of(config.runtime))
    pictures = TrainPictures(index.reader, index.labels, training_data(config), schedule, generated)
    return to_batch(pictures(np.arange(count)), keep_bad=True)


def _update(updater: Updater, batch: Batch, phase: Phase, role: str, *, step: int) -> float:
    """Make one update and return its loss; raises ModelError if it is not finite."""
    began = time.perf_counter()
    prepared = updater.prepare(batch, second_view=False)
    metrics = updater.update(prepared, phase, step=step, epoch=0.0)
    loss = float(metrics["train/loss" if phase is Phase.STUDENT else "augmentor/loss"])
    updater.clock.add(f"{phase}_update", began)
    if not np.isfinite(loss):
        raise ModelError(_diverged(updater, batch, phase, role, loss, step))
    return loss


def _diverged(updater: Updater, batch: Batch, phase: Phase, role: str, loss: float, step: int) -> str:
    """Why a loss is not finite, and what to do."""
    block, who = BLOCKS[role], role if phase is Phase.STUDENT else "augmentor"
    if step == 0:
        remedy = f"give other weights of the {role}, or use runtime.amp_dtype=float32"
    elif phase is Phase.STUDENT or not _answers_are_finite(updater, batch):
        remedy = f"lower {block}.lr, give {block}.clip_grad, or use runtime.amp_dtype=float32"
    else:
        remedy = "lower augmentor.lr or augmentor.strength"
    return f"the loss of the {'first' if step == 0 else 'next'} {who} update is {loss}; want a finite loss; {remedy}"


def _answers_are_finite(updater: Updater, batch: Batch) -> bool:
    """Whether the trained network still answers with finite numbers."""
    network = updater.learner.network
    with resting(network), torch.inference_mode():
        return bool(network(updater.precision.images(batch.images)).isfinite().all())


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with so many threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _explained(what: str, role: str) -> Iterator[None]:
    """Turn any error of torch or timm into a ModelError that says what to do."""
    try:
        yield
    except HardrayError:
        raise
    except Exception as error:  # losses, optimisers and each of timm's models raise errors of their own
        raise ModelError(
            f"{what} fails ({readable(error)}); want an update that can be made; {_remedy(error, role)}"
        ) from error


def _remedy(error: Exception, role: str) -> str:
    text = str(error)
    if "more than 1 value per channel" in text:
        return f"use a larger {BLOCKS[role]}.batch_size, {role}.img_size or data.img_size"
    if "out of memory" in text.lower() or isinstance(error, MemoryError):
        return f"use a smaller {role}.model, {role}.img_size or data.img_size, or a machine with more memory"
    return f"look at {role}.model, {role}.model_kwargs, augmentor and objective"
