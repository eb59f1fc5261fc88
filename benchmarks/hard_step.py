"""A step of HARD-Affine in one process, against the sum of its necessary passes.

Five student updates and one of the augmentor; each pass is timed alone, in turn with the steps.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.work import (
    BATCH,
    SPEC,
    STUDENT,
    TEACHER,
    Measured,
    Place,
    fast_dtype,
    interleaved,
    median,
    precision,
    python,
)
from hard_ray.augmentors.build import build_augmentor
from hard_ray.config.augmentor import AffineAugmentor
from hard_ray.config.controller import Phase
from hard_ray.config.networks import StudentConfig
from hard_ray.config.objective import HardObjective
from hard_ray.data.batch import Batch
from hard_ray.distillation.objectives import AugmentorObjective, StudentObjective
from hard_ray.distillation.phases import Learner
from hard_ray.distillation.step import Updater
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool
from hard_ray.networks.network import build_student
from hard_ray.ranks import Ranks

STUDENT_STEPS, ROUNDS = 5, 20


class Step:
    """Updates of both phases, and each of their passes alone."""

    def __init__(self) -> None:
        """Random weights and pixels: the amount of arithmetic is the same."""
        torch.manual_seed(0)
        self.precision = precision()
        teacher, self.student = (
            build_student(StudentConfig(model=name), SPEC).to(memory_format=self.precision.memory_format)
            for name in (TEACHER, STUDENT)
        )
        self.teacher = teacher.eval().requires_grad_(False)
        self.student.train()
        augmentor = build_augmentor(AffineAugmentor(), in_chans=3, img_size=32)
        assert augmentor is not None
        self.augmentor = augmentor
        objective = HardObjective()
        pool = LocalPool(FrozenNetwork(teacher, dtype=fast_dtype(), channels_last=self.precision.channels_last))
        learner = Learner(
            student=self.student,
            network=self.student,
            optimizer=torch.optim.SGD(self.student.parameters(), lr=0.01, momentum=0.9),
            augmentor=augmentor,
            augmentor_optimizer=torch.optim.AdamW(augmentor.parameter_groups()),
        )
        self.updater = Updater(
            learner,
            StudentObjective(objective),
            pool=pool,
            precision=self.precision,
            ranks=Ranks(),
            seed=0,
            augmentation=AugmentorObjective(
                objective.temperature, objective.lambda_s, objective.lambda_t, objective.cap
            ),
        )
        pixels = np.random.default_rng(0).integers(0, 256, (BATCH, 3, 32, 32), dtype=np.uint8)
        self.batch = Batch(pixels, np.arange(BATCH) % 10, np.arange(BATCH), np.zeros(BATCH, dtype=np.int64))
        self.images = self.precision.images(pixels)
        self.given = self.updater.prepare(self.batch, second_view=False).given
        self.made = 0

    def update(self, phase: Phase) -> None:
        """Run one whole update."""
        prepared = self.updater.prepare(self.batch, second_view=phase is Phase.STUDENT)
        self.updater.update(prepared, phase, step=self.made, epoch=0.0)
        self.made += 1

    def passes(self) -> dict[str, Callable[[], object]]:
        """The passes of the phases, by name."""
        twice = torch.cat([self.images, self.images])

        def teacher() -> None:
            with torch.no_grad(), self.precision.autocast():
                self.teacher(self.images)

        def teacher_gradient() -> None:
            pixels = self.images.detach().requires_grad_()
            with self.precision.autocast():
                loss = self.teacher(pixels).float().logsumexp(1).sum()
            torch.autograd.grad(loss, pixels)

        def student() -> None:
            with self.precision.autocast():
                loss = self.student(twice).float().logsumexp(1).mean()
            self.student.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            self.updater.learner.optimizer.step()

        def student_gradient() -> None:
            pixels = self.images.detach().requires_grad_()
            self.student.eval()
            with self.precision.autocast():
                loss = self.student(pixels).float().logsumexp(1).sum()
            torch.autograd.grad(loss, pixels)
            self.student.train()

        def augment() -> None:
            with torch.no_grad():
                self.augmentor.view(self.given)

        def augmentor_gradient() -> None:
            optimizer = self.updater.learner.augmentor_optimizer
            assert optimizer is not None
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(self.augmentor.augment(self.given).images.mean())
            optimizer.step()

        return {
            "teacher": teacher,
            "teacher_gradient": teacher_gradient,
            "student": student,
            "student_gradient": student_gradient,
            "augment": augment,
            "augmentor_gradient": augmentor_gradient,
        }


COUNTS = {
    "teacher": 2 * STUDENT_STEPS + 1,
    "teacher_gradient": 1,
    "student": STUDENT_STEPS,
    "student_gradient": 1,
    "augment": STUDENT_STEPS,
    "augmentor_gradient": 1,
}
"""Number of each pass in five student updates and one augmentor update."""


def main() -> None:
    """Print the ratio of one process as JSON."""
    step = Step()
    passes = step.passes()

    def seconds(call: Callable[[], object]) -> Callable[[], float]:
        def timed() -> float:
            began = time.perf_counter()
            call()
            return time.perf_counter() - began

        return timed

    measures = {name: seconds(call) for name, call in passes.items()}
    measures |= {"student update": seconds(lambda: step.update(Phase.STUDENT))}
    measures |= {"augmentor update": seconds(lambda: step.update(Phase.AUGMENTOR))}
    interleaved(measures, 3)
    found = {name: median(values) for name, values in interleaved(measures, ROUNDS).items()}
    whole = STUDENT_STEPS * found["student update"] + found["augmentor update"]
    print(json.dumps({"hard_step": whole / sum(count * found[name] for name, count in COUNTS.items())}))


def measure(place: Place, rounds: int) -> Measured:
    """`hard_step`: time over counted arithmetic."""
    del place
    return {"hard_step": median([python("hard_step")["hard_step"] for _ in range(rounds)])}


if __name__ == "__main__":
    main()
