"""Settings of checkpoints, tracking and controls."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt, field_validator

from hard_ray.config.augmentor import RandomAffineAugmentor
from hard_ray.config.base import Config, Epochs, Weight
from hard_ray.redaction import refuse_password

LONGEST_EXPERIMENT = 250
"""Characters that every database of MLflow takes."""

Control = Literal["labels_only", "kd", "random"]


class CheckpointsConfig(Config):
    """When checkpoints are written, and how many are kept."""

    every: Epochs = 1.0
    """Epochs between checkpoints; there is always one at the end."""
    keep: PositiveInt = 2
    """Number of newest checkpoints that are kept."""


class TrackingConfig(Config):
    """Recording in MLflow, and the points that are logged."""

    enabled: bool = True
    """Whether the run is recorded in MLflow."""
    uri: str | None = None
    """Tracking server; unset: MLFLOW_TRACKING_URI, else a sqlite database next to the runs."""
    experiment: str = "hardray"
    """Name of the MLflow experiment, any text of 1 to 250 characters; it is never taken as a path."""
    log_every: PositiveInt = 10
    """Updates between logged points; a point is the mean since the last one."""
    gallery_images: NonNegativeInt = 8
    """Images in each picture of the gallery; 0: no gallery."""
    system_metrics: bool = True
    """Whether CPU, memory and GPU use are recorded."""

    @field_validator("experiment")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not name.strip() or len(name) > LONGEST_EXPERIMENT or any(ord(letter) < 32 for letter in name):
            raise ValueError(
                f"an experiment of MLflow needs a name of 1 to {LONGEST_EXPERIMENT} characters in one line, got "
                f"{len(name)} characters: {name[:60]!r}"
            )
        return name

    @field_validator("uri")
    @classmethod
    def _no_password(cls, uri: str | None) -> str | None:
        return refuse_password(uri, "MLFLOW_TRACKING_URI")


class ExperimentConfig(Config):
    """The name of the run, and the controls that it is compared with."""

    name: str | None = None
    """Name of the run; unset: the name of its output folder."""
    controls: tuple[Control, ...] = ()
    """Students that are trained first, with the same number of updates: on labels only, by plain KD, by KD on random
    transforms."""
    random: RandomAffineAugmentor = RandomAffineAugmentor()
    """The transforms of the control `random`; with HARD-Policy the control draws from its prior instead."""
    jsd: Weight = 0.0
    """Weight of the Jensen-Shannon divergence in the control `labels_only`, as `objective.jsd`."""
