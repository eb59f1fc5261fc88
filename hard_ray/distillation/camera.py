"""Snapshots of augmented images, with both networks' guesses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hard_ray.augmentors.base import AugmentationInput, Augmentor
from hard_ray.data.batch import Batch
from hard_ray.distillation.teacher import TeacherPool, label_gradient, own_answer
from hard_ray.maths import losses
from hard_ray.maths.noise import normal
from hard_ray.maths.tokens import EmbeddingDistance
from hard_ray.networks.precision import Precision, resting, to_pixels, widen
from hard_ray.runs.snapshots import Guesses, Snapshot, View

DRAWS = 512
"""About how many values of each drawn parameter a snapshot holds."""


@dataclass(frozen=True, slots=True)
class Camera:
    """Shows the same images, with the same noise, to both networks at every call."""

    augmentor: Augmentor
    student: nn.Module
    pool: TeacherPool
    precision: Precision
    seed: int
    distance: EmbeddingDistance | None = None
    """Of the embeddings that the networks answer with, which are compared; None: they answer with classes."""

    def take(self, step: int, sample: Batch) -> Snapshot:
        """Take a snapshot of the present augmentor and student."""
        images = self.precision.images(sample.images)
        given = self._given(images, sample, self._noise("gallery", sample, sample.epochs))
        with torch.inference_mode():
            augmented = to_pixels(self.augmentor(given))
        return Snapshot(
            step,
            sample.labels,
            original=self._view(sample.images),
            augmented=self._view(augmented),
            samples=self._samples(images, sample),
            bounds=self.augmentor.bounds_of_samples(),
        )

    def _given(self, images: Tensor, sample: Batch, noise: Tensor) -> AugmentationInput:
        labels = torch.tensor(sample.labels).to(self.precision.device)
        generated = None if sample.generated is None else self.precision.images(sample.generated)
        answer = None if (sample.labels >= 0).all() else own_answer(self.pool, self.precision)
        gradient = label_gradient(self.pool, self.precision)
        return AugmentationInput(images, noise, labels, generated, gradient, answer)

    def _noise(self, purpose: str, sample: Batch, epochs: NDArray[np.int64]) -> Tensor:
        count = self.augmentor.noise_dim
        draws = normal(purpose, seed=self.seed, epochs=epochs, sample_ids=sample.sample_ids, count=count)
        return torch.from_numpy(draws).to(self.precision.device)

    def _view(self, pixels: NDArray[np.uint8]) -> View:
        teacher = self.pool.logits(pixels).result()
        with resting(self.student), torch.inference_mode(), self.precision.autocast():
            student = widen(self.student(self.precision.images(pixels))).cpu().numpy()
        if self.distance is not None:
            one, other = (self.distance.embedding(torch.from_numpy(each)) for each in (teacher, student))
            return View(pixels, cosine=1.0 - _distance(one, other))
        return View(pixels, Guesses.of(teacher), Guesses.of(student))

    @torch.inference_mode()
    def _samples(self, images: Tensor, sample: Batch) -> dict[str, NDArray[np.float32]]:
        """Draw parameters with more noise, the same at every call: only the augmentor changes from call to call."""
        rounds: list[dict[str, Tensor]] = []
        for number in range(math.ceil(DRAWS / len(images))):
            noise = self._noise("gallery samples", sample, np.full(len(images), number))
            rounds.append(self.augmentor.samples(self._given(images, sample, noise)))
        return {name: torch.cat([found[name] for found in rounds]).float().cpu().numpy() for name in rounds[0]}


def _distance(one: Tensor, other: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = losses.cosine_distance(one, other).numpy()
    return found
