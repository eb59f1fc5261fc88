"""A step of HARD in one process, against the sum of its necessary passes and against its random control.

Five student updates and one of the augmentor. Each pass of HARD-Affine is timed alone, in turn with the steps. Each
learned augmentor is compared with the random one of the same transforms, whose second view costs as much but which has
no augmentor updates: by time, and by counted arithmetic, which no other load changes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from benchmarks.hard_passes import HardPasses, Pass, counted, flops
from benchmarks.rounds import interleaved, median, ratio
from benchmarks.work import BATCH, SPEC, STUDENT, TEACHER, Measured, Place, fast_dtype, precision, python
from hard_ray.augmentors.build import build_augmentor
from hard_ray.config.augmentor import (
    AffineAugmentor,
    AugmentorConfig,
    LearnedPolicyAugmentor,
    RandomAffineAugmentor,
    RandomPolicyAugmentor,
)
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

STUDENT_STEPS, ROUNDS, UPDATES_BEFORE = 5, 20, 160
CONTROLS: dict[str, tuple[AugmentorConfig, AugmentorConfig]] = {
    "affine": (AffineAugmentor(), RandomAffineAugmentor()),
    "policy": (LearnedPolicyAugmentor(), RandomPolicyAugmentor()),
}
"""Learned augmentors, each with its random control."""
PARTS = (1.0, 0.25)
"""Shares of a batch that an augmentor update uses."""


class Step:
    """Updates of both phases, and each of their passes alone."""

    def __init__(self, chosen: AugmentorConfig | None = None, *, part: float = 1.0, batch_size: int = BATCH) -> None:
        """Random weights and pixels: the amount of arithmetic is the same. The augmentor's history is full."""
        torch.manual_seed(0)
        self.precision = precision()
        teacher, self.student = (
            build_student(StudentConfig(model=name), SPEC).to(memory_format=self.precision.memory_format)
            for name in (TEACHER, STUDENT)
        )
        self.teacher = teacher.eval().requires_grad_(False)
        self.student.train()
        augmentor = build_augmentor(chosen or AffineAugmentor(), in_chans=3, img_size=32)
        assert augmentor is not None
        self.augmentor, groups = augmentor, augmentor.parameter_groups()
        for _ in range(UPDATES_BEFORE if groups else 0):
            augmentor.remember()
        objective = HardObjective()
        pool = LocalPool(FrozenNetwork(teacher, dtype=fast_dtype(), channels_last=self.precision.channels_last))
        learner = Learner(
            student=self.student,
            network=self.student,
            optimizer=torch.optim.SGD(self.student.parameters(), lr=0.01, momentum=0.9),
            augmentor=augmentor,
            augmentor_optimizer=torch.optim.AdamW(groups) if groups else None,
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
            augmentor_part=part,
        )
        pixels = np.random.default_rng(0).integers(0, 256, (batch_size, 3, 32, 32), dtype=np.uint8)
        ids = np.arange(batch_size)
        self.batch = Batch(pixels, ids % 10, ids, np.zeros(batch_size, dtype=np.int64))
        self.images = self.precision.images(pixels)
        self.given = self.updater.prepare(self.batch, second_view=False).given
        self.made = 0

    def update(self, phase: Phase) -> None:
        """Run one whole update."""
        prepared = self.updater.prepare(self.batch, second_view=phase is Phase.STUDENT)
        self.updater.update(prepared, phase, step=self.made, epoch=0.0)
        self.made += 1

    def student_updates(self) -> None:
        """Updates of the student alone."""
        for _ in range(STUDENT_STEPS):
            self.update(Phase.STUDENT)

    def round(self) -> None:
        """Updates of the student, and one of the augmentor."""
        self.student_updates()
        self.update(Phase.AUGMENTOR)

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


def seconds(call: Callable[[], object]) -> Callable[[], float]:
    """A measure of the time that a call takes."""

    def timed() -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    return timed


def against_random(batch_size: int = BATCH, rounds: int = ROUNDS) -> Measured:
    """Time of each learned augmentor's step over that of its random control, and the same of counted arithmetic."""
    found: Measured = {}
    for name, (learned, control) in CONTROLS.items():
        calls = {f"hard_{name}_{part:g}": Step(learned, part=part, batch_size=batch_size).round for part in PARTS}
        calls["random"] = Step(control, batch_size=batch_size).student_updates
        arithmetic = {key: flops(call) for key, call in calls.items()}
        spent = interleaved({key: seconds(call) for key, call in calls.items()}, rounds)
        for key in calls.keys() - {"random"}:
            found[f"{key}_over_random"] = ratio(spent[key], spent["random"])
            found[f"{key}_over_random_arithmetic"] = arithmetic[key] / arithmetic["random"]
    return found


def passes_alone() -> Measured:
    """Time of a step over its counted arithmetic."""
    step = Step()
    passes = step.passes()
    measures = {name: seconds(call) for name, call in passes.items()}
    measures |= {"student update": seconds(lambda: step.update(Phase.STUDENT))}
    measures |= {"augmentor update": seconds(lambda: step.update(Phase.AUGMENTOR))}
    interleaved(measures, 3)
    found = {name: median(values) for name, values in interleaved(measures, ROUNDS).items()}
    whole = STUDENT_STEPS * found["student update"] + found["augmentor update"]
    arithmetic = counted(found, student_updates=STUDENT_STEPS, augmentor_updates=1)
    return {"hard_step": whole / arithmetic}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the ratios of one process as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=BATCH, help="of the comparison with the random control")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of the comparison with the random control")
    parser.add_argument("--only-random", action="store_true", help="leave out the passes of HARD-Affine")
    given = parser.parse_args(arguments)
    found = {} if given.only_random else passes_alone()
    print(json.dumps(found | against_random(given.batch_size, given.rounds)))


def measure(place: Place, rounds: int) -> Measured:
    """`hard_step`: time over counted arithmetic; and the ratios to random controls."""
    del place
    found = [python("hard_step") for _ in range(rounds)]
    return {name: median([values[name] for values in found]) for name in found[0]}


if __name__ == "__main__":
    main()
