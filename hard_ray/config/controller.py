"""The controller, which alternates student and augmentor phases."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from hard_ray.config.base import Config, Fraction

LONGEST_WARMUP = 300
"""Student updates of the warm-up that `warmup_steps` unset gives to HARD-Policy, at most."""
WARMUP_SHARE = 0.15
"""Largest share of a training that such a warm-up takes."""


def part_of(images: int, share: float) -> int:
    """How many of a batch's images make a share of it, rounded up: two at least, for pairs and for a variance."""
    return min(images, max(2, math.ceil(share * images)))


class _Phases(Config):
    warmup_steps: NonNegativeInt | None = None
    """Student updates before the first augmentor phase; unset: with HARD-Policy 15 % of the training and at most 300,
    in which its prior draws the images, and else none."""
    augmentor_share: Annotated[Fraction, Field(gt=0.0)] = 1.0
    """Share of a batch's images that an augmentor update uses, on each worker two at least: its cost falls with it."""

    def warmup(self, total: int, *, has_prior: bool) -> int:
        """The warm-up of a training of `total` student updates."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        return min(LONGEST_WARMUP, round(WARMUP_SHARE * total)) if has_prior else 0


class ThresholdsController(_Phases):
    """HARD's rule: the augmentor learns once disagreement has fallen, the student once it has risen."""

    policy: Literal["thresholds"] = "thresholds"
    thresholds: Literal["relative", "absolute"] = "relative"
    """`relative`: l_min multiplies the clean KD loss, l_max the disagreement at the last switch."""
    l_min: PositiveFloat = 1.1
    """The augmentor phase begins when the mean disagreement falls below this."""
    l_max: PositiveFloat = 2.0
    """The student phase begins when the mean disagreement rises above this."""
    ema: Annotated[Fraction, Field(lt=1.0)] = 0.9
    """Decay of the moving averages of disagreement and clean KD loss, per update."""
    min_student_steps: PositiveInt = 10
    """Shortest student phase, in updates."""
    max_student_steps: PositiveInt = 40
    """Longest student phase, in updates."""
    min_augmentor_steps: PositiveInt = 1
    """Shortest augmentor phase, in updates."""
    max_augmentor_steps: PositiveInt = 10
    """Longest augmentor phase, in updates."""

    @model_validator(mode="after")
    def _ordered(self) -> ThresholdsController:
        for phase in ("student", "augmentor"):
            low, high = getattr(self, f"min_{phase}_steps"), getattr(self, f"max_{phase}_steps")
            if low > high:
                raise ValueError(f"min_{phase}_steps {low} exceeds max_{phase}_steps {high}; swap them")
        if self.thresholds == "absolute" and self.l_max <= self.l_min:
            raise ValueError(f"l_max {self.l_max:g} must exceed l_min {self.l_min:g}")
        if self.thresholds == "relative" and self.l_max <= 1.0:
            raise ValueError(f"a relative l_max must exceed 1, got {self.l_max:g}")
        return self


class FixedController(_Phases):
    """Phases of fixed length; 5:1 is TeachAugment's ratio."""

    policy: Literal["fixed"] = "fixed"
    student_steps: PositiveInt = 5
    """Student updates in a row."""
    augmentor_steps: PositiveInt = 1
    """Augmentor updates in a row."""


ControllerConfig = Annotated[ThresholdsController | FixedController, Field(discriminator="policy")]


class Phase(StrEnum):
    """The network that an update trains."""

    STUDENT = "student"
    AUGMENTOR = "augmentor"
