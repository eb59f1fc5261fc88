"""Measures a student, and a teacher beside it, on batches of images under one condition."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hard_ray.augmentors.labels import Labels, filled
from hard_ray.data.batch import Pixels
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool, label_gradient
from hard_ray.evaluation.attacked import attacked
from hard_ray.evaluation.suites import Condition
from hard_ray.maths.metrics import Counts


@dataclass(frozen=True, slots=True)
class MeasuredNetworks:
    """A student and, beside it, a teacher; both are frozen."""

    student: FrozenNetwork
    teacher: FrozenNetwork | None
    batch_size: int

    def counts(
        self, condition: Condition, images: NDArray[np.uint8], labels: NDArray[np.int64], sample_ids: NDArray[np.int64]
    ) -> tuple[Counts, Counts]:
        """Counts of the student and of the teacher; the latter stay empty without a teacher.

        The teacher sees the same images as the student. Under an attack each network is attacked by its own gradient,
        and agreement is measured on the student's images.
        """
        student, teacher = Counts(), Counts()
        for start in range(0, len(labels), self.batch_size):
            rows = slice(start, start + self.batch_size)
            self._count(condition, images[rows], labels[rows], sample_ids[rows], student, teacher)
        return student, teacher

    def _count(
        self,
        condition: Condition,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        sample_ids: NDArray[np.int64],
        student: Counts,
        teacher: Counts,
    ) -> None:
        seen = self._pixels(self.student, condition, images, labels, sample_ids)
        own, truth = _among(self.student.logits(seen), condition), torch.from_numpy(labels.copy())
        if self.teacher is None:
            student.add(own, truth)
            return
        answer = _among(self.teacher.logits(seen), condition)
        student.add(own, truth, answer)
        if condition.attack is not None:
            attacked = self._pixels(self.teacher, condition, images, labels, sample_ids)
            answer = _among(self.teacher.logits(attacked), condition)
        teacher.add(answer, truth)

    def _pixels(
        self,
        network: FrozenNetwork,
        condition: Condition,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        sample_ids: NDArray[np.int64],
    ) -> Pixels:
        """The images as they are or, under an attack, as the network's own gradient changes them."""
        if condition.attack is None:
            return images
        precision = network.precision
        gradient = label_gradient(LocalPool(network), precision)
        truth: Labels = torch.from_numpy(labels.copy())
        if (labels < 0).any():  # an image without a label is led away from the teacher's answer
            judge = network if self.teacher is None else self.teacher
            truth = filled(truth, torch.from_numpy(judge.logits(images)).argmax(dim=1))
        found = attacked(images, truth, sample_ids, gradient, condition.attack, precision)
        pixels: NDArray[np.float32] = found.cpu().contiguous().numpy()
        return pixels


def _among(logits: NDArray[np.float32], condition: Condition) -> Tensor:
    """Logits of the classes that are compared."""
    found = torch.from_numpy(logits)
    return found if condition.outputs is None else found[:, list(condition.outputs)]
