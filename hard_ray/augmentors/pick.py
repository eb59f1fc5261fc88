"""CutMixPick with any augmentor: draw several views, and keep the images with the largest scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from hard_ray.augmentors.base import AugmentationInput, AugmentedView, Augmentor
from hard_ray.config.augmentor import PickAugmentor
from hard_ray.maths import losses


@dataclass(frozen=True, slots=True)
class Criterion:
    """Score of a candidate; the larger, the more it is worth learning from.

    Source: arXiv:2012.02909: the entropies are those of softmax(t) and softmax(s), the divergence is
    KL(softmax(t/T) || softmax(s/T)). The paper's code scores the student in training mode, which moves its
    BatchNorm averages; here it is scored in evaluation mode.
    """

    kind: Literal["kl", "teacher_entropy", "student_entropy"]
    temperature: float = 4.0

    @property
    def needs_teacher(self) -> bool:
        """Whether the score needs the teacher's logits, which then also label the images that are kept."""
        return self.kind != "student_entropy"

    @property
    def needs_student(self) -> bool:
        """Whether the score needs the student's logits."""
        return self.kind != "teacher_entropy"

    def __call__(self, teacher: Tensor | None, student: Tensor | None) -> Float[Tensor, " candidates"]:
        """One value per candidate, in nats."""
        if self.kind == "teacher_entropy" and teacher is not None:
            return losses.entropy(teacher)
        if self.kind == "student_entropy" and student is not None:
            return losses.entropy(student)
        if teacher is None or student is None:
            raise ValueError(f"the score {self.kind} wants logits that were not given")
        return losses.divergence(teacher, student, temperature=self.temperature) / self.temperature**2


class Pick(Augmentor):
    """Draws `pool` views of the batch, one after the other, for the step to choose from."""

    def __init__(self, config: PickAugmentor, inner: Augmentor) -> None:
        """`inner` makes each view, and learns from one draw."""
        super().__init__()
        self.config = config
        self.inner = inner
        self.noise_dim = config.pool * inner.noise_dim
        self.selection = Criterion(config.score, config.temperature)

    def forward(self, batch: AugmentationInput) -> Tensor:
        """The images of one draw, before any are picked."""
        return cast(Tensor, self.inner(self._first(batch)))

    def view(self, batch: AugmentationInput) -> AugmentedView:
        """The candidates, `pool` times the batch: the first draw of every image, then the second, and so on."""
        views = [self.inner.view(batch.with_noise(noise)) for noise in self._each(batch.noise)]
        if all(view.images is batch.images for view in views):
            return views[0]
        sources = [view.sources for view in views if view.sources is not None]
        return AugmentedView(torch.cat([view.images for view in views]), torch.cat(sources) if sources else None)

    def _each(self, noise: Tensor) -> tuple[Tensor, ...]:
        draws: tuple[Tensor, ...] = noise.split(self.inner.noise_dim, dim=1)
        return draws

    def _first(self, batch: AugmentationInput) -> AugmentationInput:
        return batch.with_noise(self._each(batch.noise)[0])

    def augment(self, batch: AugmentationInput) -> AugmentedView:
        """One draw of the inner augmentor."""
        return self.inner.augment(self._first(batch))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The inner augmentor's parameter groups."""
        return self.inner.parameter_groups()

    def remember(self) -> None:
        """Let the inner augmentor remember."""
        self.inner.remember()

    def samples(self, batch: AugmentationInput) -> dict[str, Tensor]:
        """The inner augmentor's values of one draw, before any are picked."""
        return self.inner.samples(self._first(batch))

    def bounds_of_samples(self) -> dict[str, tuple[float, float]]:
        """The inner augmentor's bounds."""
        return self.inner.bounds_of_samples()


def picked(scores: Float[Tensor, " candidates"], count: int) -> Tensor:
    """The positions of the `count` largest scores, in rising order; of equal scores, the earlier ones."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values
