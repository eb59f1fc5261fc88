"""What is measured while a student trains, and on which suites."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from hard_ray.config.base import Config, Epochs

Suite = Literal["clean", "shifted", "translate", "shifts", "rotations", "scales", "corruptions", "extra_corruptions"]


Severity = Annotated[int, Field(ge=1, le=5)]


class ValidateConfig(Config):
    """Evaluation during training and at its end."""

    every: Epochs = 1.0
    """Epochs between evaluations on the validation split; there is always one at the end."""
    suites: tuple[Suite, ...] = ("clean",)
    """What is measured: clean images, shifted, turned or scaled ones, and the common corruptions."""
    final: tuple[Suite, ...] = ()
    """What is measured in addition at the end, on the final split alone."""
    batch_size: PositiveInt = 256
    """Images per evaluated batch and worker."""
    changed_images: PositiveInt | None = None
    """Images of a split that shifts, rotations and scales are measured on, chosen by `data.split_seed`; unset: all."""
    corruption_severities: Annotated[tuple[Severity, ...], Field(min_length=1)] = (3,)
    """Severities that each of the corruptions is made at, from 1 to 5."""
    corruption_images: PositiveInt | None = 2000
    """Images of a split that `corruptions` measures, chosen by `data.split_seed`; unset: all."""

    @property
    def at_the_end(self) -> tuple[Suite, ...]:
        """What the finished student is measured on."""
        return tuple(dict.fromkeys((*self.suites, *self.final)))
