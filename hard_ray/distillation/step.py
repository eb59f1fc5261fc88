"""One update: prepare a batch, ask the teacher about it, and run the phase whose turn it is."""

from __future__ import annotations

import time
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hard_ray.augmentors.base import AugmentationInput
from hard_ray.augmentors.labels import Labels
from hard_ray.augmentors.main_mix import DRAWS, MainMix, Mixture
from hard_ray.augmentors.pick import picked
from hard_ray.config.controller import Phase
from hard_ray.data.batch import Batch
from hard_ray.distillation.messages import Ticket
from hard_ray.distillation.meter import Clock, Scalars
from hard_ray.distillation.objectives import AugmentorLoss, StudentObjective, Views
from hard_ray.distillation.optimisers import Clipping
from hard_ray.distillation.phases import Augmented, AugmentorPhase, Learner, Prepared, StudentPhase
from hard_ray.distillation.teacher import TeacherPool, handed, label_gradient
from hard_ray.maths.noise import normal, seed_of
from hard_ray.maths.t_stddev import StddevMeter
from hard_ray.networks.precision import Images, Precision, as_bytes, resting, to_device, widen
from hard_ray.ranks import Ranks


@dataclass(eq=False)
class Updater:
    """Makes one update at a time, of either phase."""

    learner: Learner
    objective: StudentObjective
    _: KW_ONLY
    pool: TeacherPool | None
    precision: Precision
    """Of the student's kernels."""
    ranks: Ranks
    seed: int
    """Of noise and dropout."""
    augmentation: AugmentorLoss | None = None
    clipping: Clipping | None = None
    """Of the student's gradient."""
    accumulate: int = 1
    """Parts into which a batch is divided for the student."""
    mix: MainMix | None = None
    """Mixes the main view, before anything else sees it."""
    round_pixels: bool = True
    """Send mixed and augmented images as uint8, and train the student on the rounded pixels."""
    share: float = 1.0
    """This rank's images over the mean of all ranks, so that every image of an update counts alike."""
    augmentor_part: float = 1.0
    """Share of a batch that an augmentor update uses."""
    clock: Clock = field(init=False, default_factory=Clock)
    stddev: StddevMeter = field(init=False, default_factory=StddevMeter)

    def prepare(self, batch: Batch, *, second_view: bool) -> Prepared:
        """Put a batch on the device and ask the teacher about it.

        `second_view`: make the augmented view now, since the student will use the batch and no update changes the
        augmentor before then.
        """
        given, mixture = self._given(batch), self._mixture(batch)
        if mixture is not None:
            given = self._mixed(given, mixture)
        assert given.labels is not None
        prepared = Prepared(given.images, given.labels, given, batch.sample_ids, splits=self._splits(batch))
        keeps_answer = self.learner.augmentor_optimizer is not None
        asks = self.objective.asks_teacher and (self.objective.learns_clean or keeps_answer)
        if asks and self.pool:
            prepared.teacher = self.pool.logits(self._asked(batch, given, mixed=mixture is not None))
        if second_view:
            self.second_view(prepared)
        return prepared

    def second_view(self, prepared: Prepared) -> None:
        """Make the augmented view of a batch, and ask the teacher about it, before the batch is used."""
        prepared.augmented = self._augment(prepared)

    def _given(self, batch: Batch) -> AugmentationInput:
        images = self._images(batch.images)
        labels = to_device(batch.labels, self.precision.device)
        generated = None if batch.generated is None else self._images(batch.generated)
        answer = None if self.objective.labelled == 1.0 else self._teacher_answer
        return AugmentationInput(images, self._noise(batch), labels, generated, self._teacher_gradient, answer)

    def _splits(self, batch: Batch) -> Tensor | None:
        """The further views of all images, one after the other, if the objective compares them."""
        if batch.splits is None or not self.objective.compares_views:
            return None
        return self._images(batch.splits.swapaxes(0, 1).reshape(-1, *batch.images.shape[1:]))

    def _images(self, pixels: NDArray[np.uint8]) -> Tensor:
        return self.precision.images(pixels)

    def _noise(self, batch: Batch) -> Tensor:
        count = self.learner.augmentor.noise_dim if self.learner.augmentor else 0
        return to_device(self._draws("augmentor", batch, count).numpy(), self.precision.device, copied=False)

    def _draws(self, purpose: str, batch: Batch, count: int) -> Tensor:
        draws = normal(purpose, seed=self.seed, epochs=batch.epochs, sample_ids=batch.sample_ids, count=count)
        return torch.from_numpy(draws)

    def _mixture(self, batch: Batch) -> Mixture | None:
        """How the main view is mixed; None: not at all."""
        if self.mix is None:
            return None
        return self.mix(self._draws("mix", batch, DRAWS), torch.Size(batch.images.shape[-2:]), self.precision.device)

    def _mixed(self, given: AugmentationInput, mixture: Mixture) -> AugmentationInput:
        """The batch with its main view mixed and rounded to pixels, and labels and generated images that fit it."""
        assert isinstance(given.labels, Tensor)
        images = _seen(self._rounded(mixture.images(given.images)))
        generated = None if given.generated is None else mixture.images(given.generated)
        return replace(given, images=images, labels=mixture.labels(given.labels), generated=generated)

    def _teacher_gradient(self, images: Tensor, labels: Labels) -> Tensor:
        """Gradient for an attack; the wait is timed."""
        if self.pool is None:
            raise RuntimeError("an attack needs the gradient of a teacher, but the run has none")
        start = time.perf_counter()
        found = label_gradient(self.pool, self.precision)(images, labels)
        self.clock.add("teacher_wait", start)
        return found

    def _teacher_answer(self, images: Tensor) -> Tensor:
        """The teacher's logits, for an attack on its own answers."""
        if self.pool is None:
            raise RuntimeError("an attack needs the answers of a teacher, but the run has none")
        found = self.wait(self.pool.logits(handed(self.pool, images)))
        assert found is not None
        return found

    @torch.no_grad()
    def _augment(self, prepared: Prepared) -> Augmented | None:
        """Make the augmented view and ask the teacher about it; an unchanged image reuses the clean answer.

        Of an objective that compares views, without a teacher, these are the further views.
        """
        if prepared.splits is not None:
            return Augmented(prepared.splits, teacher=None)
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

    def _asked(self, batch: Batch, given: AugmentationInput, *, mixed: bool) -> Images:
        """The pixels of the main view for the teacher; the batch's own bytes, from where the pool takes them."""
        assert self.pool is not None
        if mixed:
            return self._sent(given.images)
        return as_bytes(given.images) if self.pool.takes_tensors else batch.images

    def _as_sent(self, images: Tensor) -> tuple[Images, Tensor]:
        """Convert images to the pixels that the teacher receives, and the same pixels for the student."""
        assert self.pool is not None
        rounded = self._rounded(images)
        return handed(self.pool, rounded), _seen(rounded)

    def _sent(self, images: Tensor) -> Images:
        """The pixels that the teacher receives."""
        assert self.pool is not None
        return handed(self.pool, self._rounded(images))

    def _rounded(self, images: Tensor) -> Tensor:
        """Images as they go to the teacher: rounded to bytes, or as they are; on their device."""
        return as_bytes(images) if self.round_pixels else images

    def update(self, prepared: Prepared, phase: Phase, *, step: int, epoch: float) -> Scalars:
        """Make one update. `step` seeds dropout; `epoch` counts epochs of student updates."""
        torch.manual_seed(seed_of("dropout", self.seed, step, self.ranks.rank))
        match phase:
            case Phase.STUDENT:
                return self._student_phase(prepared, epoch)
            case Phase.AUGMENTOR:
                return self.augmentor_phase().update(prepared)
            case _:
                assert_never(phase)

    def _student_phase(self, prepared: Prepared, epoch: float) -> Scalars:
        augmented = prepared.augmented or self._augment(prepared)
        teacher = self.wait(prepared.teacher)
        teacher_augmented = self.wait(augmented.teacher) if augmented else None
        if augmented is not None and self._chooses(augmented):
            augmented, teacher_augmented = self.choose(augmented, teacher_augmented, len(prepared.images))
        phase = StudentPhase(
            self.learner, self.objective, self.precision, self.clock, self.clipping, self.share, self.accumulate
        )
        views, metrics = phase.update(prepared, augmented, teacher, teacher_augmented, epoch=epoch)
        return {**metrics, **self._spread(views)}

    def augmentor_phase(self) -> AugmentorPhase:
        """The augmentor's phase, as this updater makes it."""
        augmentor, optimizer = self.learner.augmentor, self.learner.augmentor_optimizer
        if augmentor is None or optimizer is None or self.pool is None:
            raise RuntimeError("an augmentor phase needs an augmentor that learns, and a teacher")
        if self.augmentation is None:
            raise RuntimeError("an augmentor phase needs an objective of the augmentor")
        return AugmentorPhase(
            augmentor,
            optimizer,
            self.learner.network,
            self.augmentation,
            self.pool,
            self.precision,
            self.ranks,
            self.clock,
            self.share,
            self.augmentor_part,
        )

    def _spread(self, views: Views) -> Scalars:
        """T. stddev: variation of the teacher's mean answer between updates, if it names classes on two views."""
        if views.teacher is None or views.teacher_augmented is None or not self.objective.has_classes:
            return {}
        found = self.stddev.add(views.teacher, views.teacher_augmented, self.ranks)
        return {} if found is None else {"augmentor/t_stddev": found}

    def _chooses(self, augmented: Augmented) -> bool:
        augmentor = self.learner.augmentor
        return augmentor is not None and augmentor.selection is not None and augmented.rows is not None

    def choose(self, candidates: Augmented, teacher: Tensor | None, count: int) -> tuple[Augmented, Tensor]:
        """Choose the `count` candidates with the largest scores, and return the teacher's answers on them.

        If the score uses the teacher, its answers are there already; if not, it is asked about the chosen images alone.
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
        answer = self.wait(pool.logits(self._sent(kept.images)))
        assert answer is not None
        return kept, answer

    @torch.no_grad()
    def _scored(self, images: Tensor) -> Tensor:
        """The student's logits in evaluation mode, which leaves its BatchNorm averages unchanged."""
        network = self.learner.network
        with resting(network), self.precision.autocast():
            return widen(network(images))

    def wait(self, ticket: Ticket[NDArray[np.float32]] | None) -> Tensor | None:
        """Wait for the teacher's logits and move them to the device."""
        if ticket is None:
            return None
        return to_device(self.clock.wait(ticket), self.precision.device)


def _seen(rounded: Tensor) -> Tensor:
    """Images in [0, 1] from what goes to the teacher, on its device."""
    return rounded.float() / 255.0 if rounded.dtype == torch.uint8 else rounded
