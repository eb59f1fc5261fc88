"""Actors and tasks of an evaluation: actors hold the networks and count, tasks make the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hard_ray.config.networks import NetworkConfig
from hard_ray.data.pictures import Columns
from hard_ray.distillation.teacher import FrozenNetwork, TeacherSpec
from hard_ray.evaluation.measure import MeasuredNetworks
from hard_ray.evaluation.plan import UNREADABLE, SuitePlan
from hard_ray.evaluation.suites import Condition
from hard_ray.maths.metrics import Counts
from hard_ray.networks.network import ImageSpec, build_student
from hard_ray.networks.precision import prepare_kernels
from hard_ray.orchestration.shipped import Shipped


@dataclass(frozen=True, slots=True)
class NetworksSpec:
    """The networks of an evaluation, as every actor builds them."""

    student: NetworkConfig
    images: ImageSpec
    dtype: str
    channels_last: bool
    threads: int | None
    teacher: TeacherSpec | None
    batch_size: int
    deterministic: bool = False
    tf32: bool | None = None

    def build(self) -> MeasuredNetworks:
        """Load the networks; raises ModelError if one cannot be used."""
        prepare_kernels(self.threads, deterministic=self.deterministic, tf32=self.tf32)
        network = build_student(self.student, self.images, role="the model")
        student = FrozenNetwork(network, dtype=self.dtype, channels_last=self.channels_last)
        teacher = None if self.teacher is None else FrozenNetwork.build(self.teacher)
        return MeasuredNetworks(student, teacher, self.batch_size)


class EvaluationActor:
    """Counts the networks' answers to blocks of images; loads the networks once."""

    def __init__(self, networks: NetworksSpec, conditions: Sequence[Condition]) -> None:
        self.networks = networks.build()
        self.conditions = conditions

    def __call__(self, block: Columns) -> Columns:
        """Count a block: one row for each run of images under the same condition."""
        numbers = block["condition"]
        starts = np.flatnonzero(np.diff(numbers, prepend=UNREADABLE - 1))
        rows = [slice(start, stop) for start, stop in zip(starts, [*starts[1:], len(numbers)], strict=True)]
        counted = [self._counts(int(numbers[row.start]), block, row) for row in rows]
        return {
            "condition": np.maximum(numbers[starts], 0),
            "student": np.stack([student.values.numpy() for student, _ in counted]),
            "teacher": np.stack([teacher.values.numpy() for _, teacher in counted]),
            "bad": np.array(["\n".join(name for name in block["bad"][row] if name) for row in rows], dtype=object),
        }

    def _counts(self, number: int, block: Columns, row: slice) -> tuple[Counts, Counts]:
        if number == UNREADABLE:
            return Counts(), Counts()
        images, labels, sample_ids = (block[name][row] for name in ("image", "label", "sample_id"))
        return self.networks.counts(self.conditions[number], images, labels, sample_ids)


def make_views(block: Columns, plan: Shipped[SuitePlan]) -> Iterator[Columns]:
    """Make the views of the pieces whose numbers a block holds; runs in Ray Data's tasks."""
    suite = plan.get()
    pieces = suite.pieces()
    for number in block["id"]:
        yield from suite.views(*pieces[int(number)])
