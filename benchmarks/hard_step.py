"""A step of HARD-Affine in one process, against the sum of its necessary passes.

Five student updates and one of the augmentor; each pass is timed alone, in turn with the steps.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.hard_passes import HardPasses, Pass, counted
from benchmarks.rounds import interleaved, median
from benchmarks.work import BATCH, SPEC, STUDENT, TEACHER, Measured, Place, fast_dtype, precision, python
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

    def passes(self) -> dict[str, Pass]:
        """The passes of the phases, by name."""
        learner = self.updater.learner
        assert learner.augmentor_optimizer is not None
        made = HardPasses(
            self.teacher,
            self.student,
            self.augmentor,
            learner.optimizer,
            learner.augmentor_optimizer,
            self.precision,
            self.images,
            self.given,
        )
        return made.named()


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
    arithmetic = counted(found, student_updates=STUDENT_STEPS, augmentor_updates=1)
    print(json.dumps({"hard_step": whole / arithmetic}))


def measure(place: Place, rounds: int) -> Measured:
    """`hard_step`: time over counted arithmetic."""
    del place
    return {"hard_step": median([python("hard_step")["hard_step"] for _ in range(rounds)])}


if __name__ == "__main__":
    main()
