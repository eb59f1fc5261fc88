"""The cost of a step with CutMixPick relative to one with CutMix, in time and in counted arithmetic.

One process holds teacher and student, and the steps take turns, so that other load affects all alike. Times are medians
over rounds; PyTorch's counter counts the arithmetic of one step, of both networks together.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.rounds import interleaved, median, ratio
from benchmarks.work import SPEC, STUDENT, TEACHER, Measured, Place
from hard_ray.augmentors.build import build_augmentor
from hard_ray.config.augmentor import AugmentorConfig, CutmixAugmentor, PickAugmentor
from hard_ray.config.controller import Phase
from hard_ray.config.networks import StudentConfig
from hard_ray.config.objective import KdObjective
from hard_ray.data.batch import Batch
from hard_ray.distillation.objectives import StudentObjective
from hard_ray.distillation.phases import Learner
from hard_ray.distillation.step import Updater
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool
from hard_ray.networks.network import build_student
from hard_ray.networks.precision import Precision
from hard_ray.ranks import Ranks

STEPS: Mapping[str, AugmentorConfig] = {
    "cutmix": CutmixAugmentor(),
    "pick, teacher_entropy": PickAugmentor(score="teacher_entropy"),
    "pick, kl": PickAugmentor(score="kl"),
    "pick, student_entropy": PickAugmentor(score="student_entropy"),
}


class Step:
    """Student updates with one augmentor, on random pixels."""

    def __init__(self, augmentor: AugmentorConfig, teacher: str, student: str, batch_size: int) -> None:
        """Give both networks random weights: the amount of arithmetic is the same."""
        precision = Precision(torch.device("cpu"), channels_last=True)
        torch.manual_seed(0)
        big, small = (
            build_student(StudentConfig(model=name), SPEC).to(memory_format=torch.channels_last)
            for name in (teacher, student)
        )
        learner = Learner(
            student=small.train(),
            network=small,
            optimizer=torch.optim.SGD(small.parameters(), lr=0.01, momentum=0.9),
            augmentor=build_augmentor(augmentor, in_chans=3, img_size=32),
        )
        self.updater = Updater(
            learner,
            StudentObjective(KdObjective()),
            pool=LocalPool(FrozenNetwork(big, channels_last=True)),
            precision=precision,
            ranks=Ranks(),
            seed=0,
        )
        pixels = np.random.default_rng(0).integers(0, 256, (batch_size, 3, 32, 32), dtype=np.uint8)
        labels, ids = np.arange(batch_size) % 10, np.arange(batch_size)
        self.batch = Batch(pixels, labels, ids, np.zeros(batch_size, dtype=np.int64))
        self.made = 0

    def __call__(self) -> float:
        """Run one update and return its seconds."""
        began = time.perf_counter()
        prepared = self.updater.prepare(self.batch, second_view=True)
        self.updater.update(prepared, Phase.STUDENT, step=self.made, epoch=0.0)
        self.made += 1
        return time.perf_counter() - began

    def arithmetic(self) -> int:
        """Floating-point operations of one update."""
        counter = FlopCounterMode(display=False)
        with counter:
            self()
        return int(counter.get_total_flops())


def measure(place: Place, rounds: int) -> Measured:
    """The time of each score over CutMix's, and over the expectation from its counted arithmetic."""
    del place
    ratios = compare(TEACHER, STUDENT, 64, rounds)
    found: Measured = {}
    for name, (time_ratio, arithmetic_ratio) in ratios.items():
        if name != "cutmix":
            key = name.replace("pick, ", "pick_")
            found |= {key: time_ratio, f"{key}_arithmetic": time_ratio / arithmetic_ratio}
    return found


def compare(teacher: str, student: str, batch_size: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Measure and print time and counted arithmetic of each step over CutMix's."""
    steps = {name: Step(augmentor, teacher, student, batch_size) for name, augmentor in STEPS.items()}
    counted = {name: step.arithmetic() for name, step in steps.items()}
    interleaved(steps, 1)
    seconds = interleaved(steps, rounds)
    found = {name: (ratio(seconds[name], seconds["cutmix"]), counted[name] / counted["cutmix"]) for name in steps}
    print(f"{teacher} -> {student}, batches of {batch_size}, {torch.get_num_threads()} threads")
    print(f"{'step':<24}{'ms':>8}{'time / cutmix':>16}{'arithmetic / cutmix':>22}{'time / arithmetic':>20}")
    for name, (taken, expected) in found.items():
        print(f"{name:<24}{1000 * median(seconds[name]):>8.1f}{taken:>16.3f}{expected:>22.3f}{taken / expected:>20.3f}")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default=TEACHER)
    parser.add_argument("--student", default=STUDENT)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args(arguments)
    compare(given.teacher, given.student, given.batch_size, given.rounds)


if __name__ == "__main__":
    main()
