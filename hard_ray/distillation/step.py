"""One alternating update as named phases.

prepare  images to the device; the teacher is asked about them, and about their augmentation where the
         augmentor will not change before they are used
student  wait for the teacher, one forward pass over both views, one optimiser step
augmentor  one round trip to the teacher for loss and gradient, the student's path added, one optimiser step
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from hard_ray.augmentors.base import AugmentationInput, Augmentor
from hard_ray.augmentors.pick import picked
from hard_ray.config.controller import Phase
from hard_ray.data.batch import Batch, Pixels
from hard_ray.distillation.messages import Answer, Ticket
from hard_ray.distillation.objectives import Drift, HardAugmentation, StudentObjective, Views, answer_to_keep
from hard_ray.distillation.teacher import TeacherPool, label_gradient
from hard_ray.maths import losses
from hard_ray.maths.noise import normal, seed_of
from hard_ray.maths.t_stddev import StddevMeter
from hard_ray.networks.precision import Precision, resting, widen
from hard_ray.ranks import Ranks

Metrics = dict[str, Tensor]
"""Scalars on the training device, by the names they are logged under."""


@dataclass(slots=True)
class Augmented:
    """A second view, as pixels that both networks see."""

    images: Tensor
    teacher: Ticket[NDArray[np.float32]] | None
    """None where images are still to be chosen, before the teacher is asked about them."""
    sources: Tensor | None = None
    rows: Tensor | None = None
    """The image of the batch that each was made from; None: in the batch's order."""


@dataclass(slots=True)
class Prepared:
    """A batch on the device, whose teacher answers were asked for."""

    images: Tensor
    labels: Tensor
    given: AugmentationInput
    sample_ids: NDArray[np.int64]
    teacher: Ticket[NDArray[np.float32]] | None
    augmented: Augmented | None = None


@dataclass(slots=True)
class Clock:
    """Where the time went, in seconds since the start of the run."""

    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, since: float) -> None:
        """Count the time from `since` (of time.perf_counter) to now."""
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - since


@dataclass(slots=True)
class Learner:
    """A student, an augmentor and what moves their weights: everything that an update changes."""

    student: nn.Module
    """As it is called: wrapped for several ranks where there are several."""
    network: nn.Module
    """The student itself, which the augmentor phase calls."""
    optimizer: Optimizer
    augmentor: Augmentor | None = None
    augmentor_optimizer: Optimizer | None = None


class Updater:
    """Makes one update at a time, of whichever phase."""

    def __init__(
        self,
        learner: Learner,
        objective: StudentObjective,
        *,
        pool: TeacherPool | None,
        precision: Precision,
        ranks: Ranks,
        seed: int,
        augmentation: HardAugmentation | None = None,
        clip_grad: float | None = None,
        round_pixels: bool = True,
        share: float = 1.0,
    ) -> None:
        """What an update is made with.

        Args:
            learner: what changes.
            objective: what the student minimises.
            pool: the teacher.
            precision: of the student's kernels.
            ranks: who trains together.
            seed: of noise and dropout.
            augmentation: what the augmentor minimises.
            clip_grad: largest norm of the student's gradient.
            round_pixels: send augmented images as uint8, and train the student on the rounded pixels.
            share: this rank's images over the mean of all ranks, so that every image of an update counts alike.
        """
        self.learner = learner
        self.objective = objective
        self.pool = pool
        self.precision = precision
        self.ranks = ranks
        self.seed = seed
        self.augmentation = augmentation
        self.clip_grad = clip_grad
        self.round_pixels = round_pixels
        self.share = share
        self.clock = Clock()
        self.stddev = StddevMeter()

    # ------------------------------------------------------------------ prepare

    def prepare(self, batch: Batch, *, second_view: bool) -> Prepared:
        """Put a batch on the device and ask the teacher about it.

        Args:
            batch: pixels, labels, sample ids and epochs.
            second_view: make the augmented view now: the student will use the batch, and no update changes the
                augmentor before then.
        """
        images = self._images(batch.images)
        labels = torch.tensor(batch.labels).to(self.precision.device)
        generated = None if batch.generated is None else self._images(batch.generated)
        keeps_answer = self.learner.augmentor_optimizer is not None
        asks = self.objective.asks_teacher and (self.objective.learns_clean or keeps_answer)
        prepared = Prepared(
            images=images,
            labels=labels,
            given=AugmentationInput(images, self._noise(batch), labels, generated, self._teacher_gradient),
            sample_ids=batch.sample_ids,
            teacher=self.pool.logits(batch.images) if asks and self.pool else None,
        )
        if second_view:
            self.second_view(prepared)
        return prepared

    def second_view(self, prepared: Prepared) -> None:
        """Make the augmented view of a batch, and ask the teacher about it, before the batch is used."""
        prepared.augmented = self._augment(prepared)

    def _images(self, pixels: NDArray[np.uint8]) -> Tensor:
        return self.precision.images(pixels)

    def _noise(self, batch: Batch) -> Tensor:
        count = self.learner.augmentor.noise_dim if self.learner.augmentor else 0
        draws = normal("augmentor", seed=self.seed, epochs=batch.epochs, sample_ids=batch.sample_ids, count=count)
        return torch.from_numpy(draws).to(self.precision.device)

    def _teacher_gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        """What an attack climbs, with the time that it waits."""
        if self.pool is None:
            raise RuntimeError("a gradient was asked of a teacher that is not there")
        start = time.perf_counter()
        found = label_gradient(self.pool, self.precision)(images, labels)
        self.clock.add("teacher_wait", start)
        return found

    @torch.no_grad()
    def _augment(self, prepared: Prepared) -> Augmented | None:
        """The second view, and the teacher asked about it. An augmentor that does nothing costs nothing."""
        augmentor, pool = self.learner.augmentor, self.pool
        if augmentor is None or pool is None or not self.objective.asks_teacher:
            return None
        view = augmentor.view(prepared.given)
        if view.images is prepared.images and prepared.teacher is not None:
            return Augmented(view.images, prepared.teacher)
        pixels, images = self._as_sent(view.images)
        views, batch = len(images), len(prepared.images)
        rows = None if views == batch else torch.arange(views, device=images.device) % batch
        asks = augmentor.selection is None or augmentor.selection.needs_teacher
        return Augmented(images, pool.logits(pixels) if asks else None, view.sources, rows)

    def _as_sent(self, images: Tensor) -> tuple[Pixels, Tensor]:
        """Pixels as they travel to the teacher, and the same for the student."""
        if not self.round_pixels:
            return images.cpu().numpy(), images
        rounded = (images * 255.0).round().to(torch.uint8)
        return rounded.cpu().numpy(), rounded.float() / 255.0

    # ------------------------------------------------------------------- update

    def update(self, prepared: Prepared, phase: Phase, *, step: int, epoch: float) -> Metrics:
        """One update. `step` seeds dropout; `epoch` counts epochs of student updates."""
        torch.manual_seed(seed_of("dropout", self.seed, step, self.ranks.rank))
        match phase:
            case Phase.STUDENT:
                return self._student_phase(prepared, epoch)
            case Phase.AUGMENTOR:
                return self._augmentor_phase(prepared)
            case _:
                assert_never(phase)

    def _student_phase(self, prepared: Prepared, epoch: float) -> Metrics:
        """The student learns the teacher's answers on both views; the augmentor rests."""
        augmented = prepared.augmented or self._augment(prepared)
        teacher = self._wait(prepared.teacher)
        teacher_augmented = self._wait(augmented.teacher) if augmented else None
        if augmented is not None and self._chooses(augmented):
            augmented, teacher_augmented = self._choose(augmented, teacher_augmented, len(prepared.images))
        start = time.perf_counter()
        student, student_augmented = self._both_views(prepared.images, augmented)
        views = Views(prepared.labels, student, teacher, student_augmented, teacher_augmented)
        if augmented is not None:
            views = replace(views, rows=augmented.rows, sources=augmented.sources)
        found = self.objective(views, epoch=epoch)
        loss = found.total.mean()
        weighted = loss if self.share == 1.0 else self.share * loss
        self.learner.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(weighted)
        if self.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.learner.network.parameters(), self.clip_grad)
        self.learner.optimizer.step()
        self.clock.add("student", start)
        parts = {f"train/{name}": value.detach().mean() for name, value in found.parts.items()}
        return {"train/loss": loss.detach(), "train/top1": _top1(views), **parts, **self._spread(views)}

    def _spread(self, views: Views) -> Metrics:
        """How much the teacher's mean answer varies from update to update, where it answers on two views."""
        if views.teacher is None or views.teacher_augmented is None:
            return {}
        found = self.stddev.add(views.teacher, views.teacher_augmented, self.ranks)
        return {} if found is None else {"augmentor/t_stddev": found}

    def _chooses(self, augmented: Augmented) -> bool:
        augmentor = self.learner.augmentor
        return augmentor is not None and augmentor.selection is not None and augmented.rows is not None

    def _choose(self, candidates: Augmented, teacher: Tensor | None, count: int) -> tuple[Augmented, Tensor]:
        """The `count` candidates with the largest scores, and the teacher's answers on them.

        Where the teacher scores, its scores are its answers; where it does not, it is asked about the chosen alone.
        """
        augmentor, pool = self.learner.augmentor, self.pool
        assert augmentor is not None
        assert augmentor.selection is not None
        assert pool is not None
        start = time.perf_counter()
        student = self._scored(candidates.images) if augmentor.selection.needs_student else None
        chosen = picked(augmentor.selection(teacher, student), count)
        kept = Augmented(
            candidates.images[chosen],
            candidates.teacher,
            None if candidates.sources is None else candidates.sources[chosen],
            None if candidates.rows is None else candidates.rows[chosen],
        )
        self.clock.add("choice", start)
        if teacher is not None:
            return kept, teacher[chosen]
        answer = self._wait(pool.logits(self._as_sent(kept.images)[0]))
        assert answer is not None
        return kept, answer

    @torch.no_grad()
    def _scored(self, images: Tensor) -> Tensor:
        """The student's logits in evaluation mode: its BatchNorm averages stay as they are."""
        network = self.learner.network
        with resting(network), self.precision.autocast():
            return widen(network(images))

    def _both_views(self, images: Tensor, augmented: Augmented | None) -> tuple[Tensor | None, Tensor | None]:
        """The student's logits on the clean and the augmented view, from one forward pass."""
        with self.precision.autocast():
            if augmented is None:
                return widen(self.learner.student(images)), None
            if not self.objective.learns_clean:
                return None, widen(self.learner.student(augmented.images))
            if augmented.images is images:
                logits = widen(self.learner.student(images))
                return logits, logits
            logits = widen(self.learner.student(torch.cat([images, augmented.images])))
        return logits[: len(images)], logits[len(images) :]

    def _augmentor_phase(self, prepared: Prepared) -> Metrics:
        """The augmentor seeks images on which the student errs and the teacher does not; the student rests.

        The gradient reaches the augmented images along two paths. The teacher returns its own; the student's
        is added here, with the same objective and the teacher's logits held constant.
        """
        learner, pool = self.learner, self.pool
        if learner.augmentor is None or learner.augmentor_optimizer is None or pool is None:
            raise RuntimeError("an augmentor phase needs an augmentor that learns, and a teacher")
        if self.augmentation is None:
            raise RuntimeError("an augmentor phase needs what the augmentor minimises")
        view = learner.augmentor.augment(prepared.given)
        pixels = view.images.detach().requires_grad_()
        with resting(learner.network), self.precision.autocast():
            student = widen(learner.network(pixels))
        clean = self._wait(prepared.teacher)
        if clean is None:
            raise RuntimeError("an augmentor phase needs the teacher's logits on clean images")
        sources = None if view.sources is None else view.sources.detach().requires_grad_()
        context = {"student": student, **answer_to_keep(clean, sources, self.augmentation.temperature)}
        ticket = pool.loss_and_grad(_arrays(pixels), self.augmentation, {k: _arrays(v) for k, v in context.items()})
        answer = self._timed(ticket)
        start = time.perf_counter()
        teacher = torch.tensor(answer.logits).to(self.precision.device)
        along_student = self.augmentation(teacher, context)
        grads = torch.autograd.grad(along_student.sum(), [pixels] if sources is None else [pixels, sources])
        through_teacher = torch.tensor(answer.grad).to(self.precision.device)
        reached = [(view.images, grads[0] + through_teacher), *zip(_present(view.sources), grads[1:], strict=True)]
        learner.augmentor_optimizer.zero_grad(set_to_none=True)
        weighted = [self.share * grad / len(pixels) for _, grad in reached]
        torch.autograd.backward([made for made, _ in reached], weighted)
        self.ranks.average_gradients(learner.augmentor.parameters())
        learner.augmentor_optimizer.step()
        learner.augmentor.remember()
        self.clock.add("augmentor", start)
        temperature = self.augmentation.temperature
        with torch.no_grad():
            disagreement = losses.divergence(teacher, student, temperature=temperature).mean()
            drift = Drift(temperature)(teacher, context).mean()
        statistics = {
            f"augmentor/{name}": value for name, value in learner.augmentor.statistics(prepared.given).items()
        }
        return {
            "augmentor/loss": along_student.detach().mean(),
            "train/disagreement": disagreement,
            "train/drift": drift,
            **statistics,
        }

    def _wait(self, ticket: Ticket[NDArray[np.float32]] | None) -> Tensor | None:
        if ticket is None:
            return None
        return torch.tensor(self._timed(ticket)).to(self.precision.device)

    def _timed(self, ticket: Ticket[Answer]) -> Answer:
        start = time.perf_counter()
        answer = ticket.result()
        self.clock.add("teacher_wait", start)
        return answer


def _top1(views: Views) -> Tensor:
    """The share of the images that the student names rightly, in percent: of clean ones where it sees them."""
    logits, labels = views.student, views.labels
    if logits is None:
        logits, labels = views.student_augmented, views.augmented_labels()
    assert logits is not None
    return 100.0 * (logits.detach().argmax(dim=1) == labels).float().mean()


def _present(tensor: Tensor | None) -> list[Tensor]:
    return [] if tensor is None else [tensor]


def _arrays(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().cpu().contiguous().numpy()
    return array
