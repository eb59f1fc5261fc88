"""Suites: each is a list of conditions that images are put under."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

from hard_ray.config.validation import PGD, EvaluationAttack, Suite
from hard_ray.evaluation import corruptions
from hard_ray.evaluation.changes import CORNERS, Change, DiagonalShift, Rotation, Scale, Shift, Unchanged
from hard_ray.evaluation.corruptions import Corruption

SHIFT_SHARES = (1 / 14, 1 / 7)
"""Shifts of the `shifted` suite as shares of the image's side: 2 and 4 pixels of 28."""
TRANSLATION = 3
"""Pixels of 28 by which `translate` moves images."""
SHIFTS = range(7)
"""Pixels of 28 by which `shifts` moves images."""
ROTATIONS = (-45, -30, -15, 0, 15, 30, 45)
"""Degrees by which `rotations` turns images."""

SCALES = (0.5, 0.65, 0.8, 1, 1.25, 1.5, 2)
"""Factors by which `scales` enlarges images."""


UNCHANGED = Unchanged()


@dataclass(frozen=True, slots=True)
class Condition:
    """A change or an attack of images, with the name and severity of its result."""

    name: str
    severity: str
    change: Change = UNCHANGED
    source: int = 0
    """Which of the suite's sets of images is changed."""
    attack: EvaluationAttack | None = None
    """An attack on each network by its own gradient; None: no attack."""
    outputs: tuple[int, ...] | None = None
    """The classes that are compared; None: all."""
    is_aside: bool = False
    """Whether the result is listed beside the suite's and is not part of its sum."""


def conditions(
    suite: Suite,
    *,
    img_size: int,
    sampled: bool = False,
    severities: Sequence[int] = (3,),
    attack: EvaluationAttack = PGD,
) -> tuple[Condition, ...]:
    """The conditions of a suite, for images of one size.

    `corruptions` has 15 corruptions at each of `severities`, `extra_corruptions` four more. `adversarial`
    is `attack`. `shifted` moves all images
    diagonally, by two distances, to each of the four corners. `translate` moves each image by 3 pixels of 28 on both
    axes to a corner of its own, and `shifts` is the curve over such distances. If changed images are `sampled`, the
    unchanged point of a curve is measured on the sample too; else it is the same as `clean` and measured once.

    Source: `translate` is the corruption of that name of MNIST-C (Mu and Gilmer 2019, arXiv:1906.02337; severity 3 of
    its released code: whole pixels, filled with zeros, a random sign on each axis). MNIST-C drew its signs without a
    seed; here the sample id decides them, so a single image may move to another corner than in MNIST-C's files.
    """
    match suite:
        case "clean":
            return (Condition("clean", "0", Unchanged()),)
        case "shifted":
            return tuple(
                Condition("shift", str(distance), Shift(right * distance, down * distance))
                for distance in sorted({max(1, round(share * img_size)) for share in SHIFT_SHARES})
                for right, down in CORNERS
            )
        case "translate":
            return (_shifted(max(1, _pixels(TRANSLATION, img_size)), sampled),)
        case "shifts" | "rotations" | "scales":
            return tuple(_sweep(suite, img_size, sampled))
        case "corruptions" | "extra_corruptions":
            return tuple(
                Condition(name, str(severity), Corruption(name, severity))
                for name in (corruptions.NAMES if suite == "corruptions" else corruptions.EXTRA_NAMES)
                for severity in severities
            )
        case "adversarial":
            return (Condition(f"pgd_{attack.norm}", f"{attack.eps:.4g}", attack=attack),)
        case _:
            assert_never(suite)


def _sweep(suite: Literal["shifts", "rotations", "scales"], img_size: int, sampled: bool) -> Iterator[Condition]:
    """Yield the points of a curve, including the unchanged images."""
    still = Unchanged(whole=not sampled)
    match suite:
        case "shifts":
            yield from (
                _shifted(distance, sampled) for distance in sorted({_pixels(step, img_size) for step in SHIFTS})
            )
        case "rotations":
            for degrees in ROTATIONS:
                yield Condition("rotation", str(degrees), Rotation(degrees) if degrees else still)
        case "scales":
            for factor in SCALES:
                yield Condition("scale", str(factor), Scale(factor) if factor != 1 else still)
        case _:
            assert_never(suite)


def check_suites(suites: Sequence[Suite]) -> None:
    """Raise a HardrayError if a suite needs a package that is not installed."""
    if {"corruptions", "extra_corruptions"} & set(suites):
        corruptions.check_installed()


def _pixels(step: int, img_size: int) -> int:
    """Scale a distance that is given for images of 28 pixels."""
    return round(step * img_size / 28)


def _shifted(distance: int, sampled: bool) -> Condition:
    return Condition("shift", str(distance), DiagonalShift(distance) if distance else Unchanged(whole=not sampled))
