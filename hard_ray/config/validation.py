"""Evaluation during training and at its end, and the names of suites."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from hard_ray.config.augmentor import AttackConfig
from hard_ray.config.base import Config, Epochs, Fraction

Suite = Literal[
    "clean",
    "shifted",
    "translate",
    "shifts",
    "rotations",
    "scales",
    "corruptions",
    "extra_corruptions",
    "adversarial",
]
Severity = Annotated[int, Field(ge=1, le=5)]


class EvaluationAttack(AttackConfig):
    """Gradient ascent on the measured network's own cross-entropy, within a ball around the image (PGD)."""

    norm: Literal["l2", "linf"] = "linf"
    """Norm of the ball, over all pixels of an image in [0, 1]."""
    eps: PositiveFloat = 8 / 255
    """Radius of the ball."""
    step_size: PositiveFloat = 2 / 255
    """Length of each step in that norm."""
    steps: PositiveInt = 10
    """Steps of ascent."""
    random_start: Fraction = 1.0
    """Probability that the ascent starts at a random point of the ball."""


PGD = EvaluationAttack()
"""The attack by default."""


class ValidationConfig(Config):
    """Evaluation during training and at its end."""

    every: Epochs = 1.0
    """Epochs between evaluations on the validation split; the last update is always followed by one."""
    suites: tuple[Suite, ...] = ("clean",)
    """Suites to measure: clean, shifted, rotated or scaled images, the common corruptions, and attacks."""
    final: tuple[Suite, ...] = ()
    """Suites to measure in addition at the end, on the final split only."""
    batch_size: PositiveInt = 256
    """Images per evaluation batch and worker."""
    changed_images: PositiveInt | None = None
    """Number of images for shifts, rotations and scales, chosen from a split by `data.split_seed`; unset: all."""
    corruption_severities: Annotated[tuple[Severity, ...], Field(min_length=1)] = (3,)
    """Severities of each corruption, from 1 to 5."""
    corruption_images: PositiveInt | None = 2000
    """Number of images for `corruptions`, chosen from a split by `data.split_seed`; unset: all."""
    attack: EvaluationAttack = PGD
    """Attack of the suite `adversarial`."""
    attack_images: PositiveInt | None = 500
    """Number of images for `adversarial`, chosen from a split by `data.split_seed`; unset: all."""

    @property
    def at_the_end(self) -> tuple[Suite, ...]:
        """Suites of the evaluation at the end."""
        return tuple(dict.fromkeys((*self.suites, *self.final)))
