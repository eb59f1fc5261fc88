"""The actors of an evaluation: each holds the student, and the teacher beside it, and counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from hard_ray.config.networks import NetworkConfig
from hard_ray.data.pictures import Columns
from hard_ray.distillation.teacher import FrozenNetwork, TeacherSpec
from hard_ray.evaluation.measure import Measuring, Part
from hard_ray.evaluation.plan import UNREADABLE, SuitePlan
from hard_ray.maths.metrics import Counts
from hard_ray.networks.network import ImageSpec, build_student
from hard_ray.networks.precision import prepare_kernels


@dataclass(frozen=True, slots=True)
class NetworksSpec:
    """The networks of an evaluation, as every actor is told of them."""

    student: NetworkConfig
    images: ImageSpec
    dtype: str
    channels_last: bool
    threads: int | None
    teacher: TeacherSpec | None
    batch_size: int

    def build(self) -> Measuring:
        """Load them.

        Raises:
            ModelError: one of them cannot be used.
        """
        prepare_kernels(self.threads)
        network = build_student(self.student, self.images, role="the model")
        student = FrozenNetwork(network, dtype=self.dtype, channels_last=self.channels_last)
        teacher = None if self.teacher is None else FrozenNetwork.build(self.teacher)
        return Measuring(student, teacher, self.batch_size)


class Measurer:
    """Counts what the networks answer to blocks of images; they are loaded once."""

    def __init__(self, networks: NetworksSpec, parts: Sequence[Part]) -> None:
        """`parts` are the suite's."""
        self.measuring = networks.build()
        self.parts = parts

    def __call__(self, block: Columns) -> Columns:
        """One row for each part that the block has images of."""
        starts = np.flatnonzero(np.diff(block["part"], prepend=UNREADABLE - 1))
        rows = [slice(start, stop) for start, stop in zip(starts, [*starts[1:], len(block["part"])], strict=True)]
        counted = [
            self.measuring.counts(
                self.parts[int(block["part"][row.start])],
                block["image"][row],
                block["label"][row],
                block["sample_id"][row],
            )
            if block["part"][row.start] != UNREADABLE
            else (Counts(), Counts())
            for row in rows
        ]
        return {
            "part": np.maximum(block["part"][starts], 0),
            "student": np.stack([student.values.numpy() for student, _ in counted]),
            "teacher": np.stack([teacher.values.numpy() for _, teacher in counted]),
            "bad": np.array(["\n".join(name for name in block["bad"][row] if name) for row in rows], dtype=object),
        }


def make_views(block: Columns, shipped: Sequence[Any]) -> Iterator[Columns]:
    """The views of the pieces whose numbers a block holds; runs in Ray Data's tasks, told where the plan is."""
    plan: SuitePlan = ray.get(shipped[0])
    pieces = plan.pieces()
    for number in block["id"]:
        yield from plan.views(*pieces[int(number)])
