"""Evaluation during training and at its end, and the names of suites."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from hard_ray.config.base import Config, Epochs

Suite = Literal["clean", "shifted", "translate", "shifts", "rotations", "scales", "corruptions", "extra_corruptions"]
Severity = Annotated[int, Field(ge=1, le=5)]


class ValidationConfig(Config):
    """Evaluation during training and at its end."""

    every: Epochs = 1.0
    """Epochs between evaluations on the validation split; the last update is always followed by one."""
    suites: tuple[Suite, ...] = ("clean",)
    """Suites to measure: clean, shifted, rotated or scaled images, and the common corruptions."""
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

    @property
    def at_the_end(self) -> tuple[Suite, ...]:
        """Suites of the evaluation at the end."""
        return tuple(dict.fromkeys((*self.suites, *self.final)))
