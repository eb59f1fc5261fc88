"""Measures a student, and a teacher beside it, on batches of images under one condition."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hard_ray.config.evaluation import EvaluationAttack
from hard_ray.data.batch import Pixels
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool, label_gradient
from hard_ray.evaluation import corruptions
from hard_ray.evaluation.changes import Change, Unchanged
from hard_ray.evaluation.mce import mce, mce_vs_teacher
from hard_ray.maths.attacks import START_DRAWS, attack
from hard_ray.maths.metrics import Counts
from hard_ray.maths.noise import normal

UNCHANGED = Unchanged()


@dataclass(frozen=True, slots=True)
class Part:
    """One condition of a suite: what is done to the images of a source, and what is compared."""

    name: str
    severity: str
    source: int = 0
    """Which of the suite's sources it reads."""
    change: Change = UNCHANGED
    attack: EvaluationAttack | None = None
    """How each network's own images are attacked; None: they are not."""
    outputs: tuple[int, ...] | None = None
    """The classes that are compared; None: all."""
    is_aside: bool = False
    """Stands beside the suite and is not part of its sum."""


@dataclass(frozen=True, slots=True)
class Measuring:
    """The networks that are measured; each is frozen, as a teacher is."""

    student: FrozenNetwork
    teacher: FrozenNetwork | None
    batch_size: int

    def counts(
        self, part: Part, images: NDArray[np.uint8], labels: NDArray[np.int64], sample_ids: NDArray[np.int64]
    ) -> tuple[Counts, Counts]:
        """What is counted of the student and of the teacher; the latter is empty where there is none.

        The teacher answers to what the student sees. Under an attack each is attacked by its own gradient, and
        agreement is measured on the student's images.
        """
        student, teacher = Counts(), Counts()
        for start in range(0, len(labels), self.batch_size):
            rows = slice(start, start + self.batch_size)
            self._count(part, images[rows], labels[rows], sample_ids[rows], student, teacher)
        return student, teacher

    def _count(
        self,
        part: Part,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        sample_ids: NDArray[np.int64],
        student: Counts,
        teacher: Counts,
    ) -> None:
        seen = self._pixels(self.student, part, images, labels, sample_ids)
        own, truth = _among(self.student.logits(seen), part), torch.from_numpy(labels.copy())
        if self.teacher is None:
            student.add(own, truth)
            return
        answer = _among(self.teacher.logits(seen), part)
        student.add(own, truth, answer)
        if part.attack is not None:
            attacked = self._pixels(self.teacher, part, images, labels, sample_ids)
            answer = _among(self.teacher.logits(attacked), part)
        teacher.add(answer, truth)

    def _pixels(
        self,
        network: FrozenNetwork,
        part: Part,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        sample_ids: NDArray[np.int64],
    ) -> Pixels:
        """What the network sees: the images, or those that its own gradient makes of them."""
        if part.attack is None:
            return images
        precision = network.precision
        draws = normal("attack", seed=0, epochs=np.zeros_like(sample_ids), sample_ids=sample_ids, count=START_DRAWS)
        centre, noise = precision.images(images), torch.from_numpy(draws).to(precision.device)
        gradient, truth = label_gradient(LocalPool(network), precision), torch.from_numpy(labels.copy())
        found = attack(centre, noise, lambda pixels: gradient(pixels, truth), part.attack)
        pixels: NDArray[np.float32] = found.cpu().contiguous().numpy()
        return pixels


def _among(logits: NDArray[np.float32], part: Part) -> Tensor:
    """The logits of the classes that are compared."""
    found = torch.from_numpy(logits)
    return found if part.outputs is None else found[:, list(part.outputs)]


# ------------------------------------------------------------------------- results


def suite_results(
    parts: Sequence[Part], students: Sequence[Counts], teachers: Sequence[Counts] | None, *, has_mce: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A suite's numbers as `evaluation.json` has them, of the student and of the teacher.

    Args:
        parts: of the suite.
        students: what was counted of the student, by part.
        teachers: the same of the teacher; None where there is none.
        has_mce: whether the suite is ImageNet-C itself, at its own size, so that AlexNet's errors are a reference.
    """
    student = _result(parts, students, with_teacher=teachers is not None, has_mce=has_mce)
    if teachers is None:
        return student, {}
    teacher = _result(parts, teachers, with_teacher=False, has_mce=has_mce)
    if _is_corruptions(parts):
        relative = mce_vs_teacher(student["by"], teacher["by"])
        student |= {} if relative is None else {"mce_vs_teacher": relative}
    return student, teacher


def _result(parts: Sequence[Part], counts: Sequence[Counts], *, with_teacher: bool, has_mce: bool) -> dict[str, Any]:
    inner = [(part, counted) for part, counted in zip(parts, counts, strict=True) if not part.is_aside]
    total = functools.reduce(Counts.plus, (counted for _, counted in inner), Counts())
    score = {key: value for key, value in asdict(total.score(with_teacher=with_teacher)).items() if value is not None}
    by = _by(inner)
    result = {**score, "reliability": total.reliability()}
    if len(inner) > 1 or _is_corruptions(parts):
        result["by"] = by
    aside = {
        f"{part.name}_top1": counted.score(with_teacher=False).top1
        for part, counted in zip(parts, counts, strict=True)
        if part.is_aside
    }
    absolute = mce(by) if has_mce else None
    return result | aside | ({} if absolute is None else {"mce": absolute})


def _by(counts: Sequence[tuple[Part, Counts]]) -> Mapping[str, dict[str, float]]:
    """Top-1 by condition and severity."""
    sums: dict[tuple[str, str], Counts] = {}
    for part, counted in counts:
        key = (part.name, part.severity)
        sums[key] = sums[key].plus(counted) if key in sums else counted
    by: dict[str, dict[str, float]] = {}
    for (name, severity), counted in sums.items():
        by.setdefault(name, {})[severity] = counted.score(with_teacher=False).top1
    return by


def _is_corruptions(parts: Sequence[Part]) -> bool:
    return {part.name for part in parts} <= {*corruptions.NAMES, *corruptions.EXTRA_NAMES}
