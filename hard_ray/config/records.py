"""What a run writes down: checkpoints, tracking, and its place in an experiment."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt, field_validator

from hard_ray.config.augmentor import RandomAffineAugmentor
from hard_ray.config.base import Config, Epochs
from hard_ray.redaction import refuse_password

Control = Literal["labels_only", "kd", "random"]


class CheckpointsConfig(Config):
    """What a resume needs."""

    every: Epochs = 1.0
    """Epochs between checkpoints; there is always one at the end."""
    keep: PositiveInt = 2
    """How many of the newest checkpoints stay."""


class TrackingConfig(Config):
    """What MLflow is told."""

    enabled: bool = True
    """Whether the run is recorded in MLflow."""
    uri: str | None = None
    """Tracking server; unset: MLFLOW_TRACKING_URI, else one sqlite database beside the runs."""
    experiment: str = "hardray"
    """Name of the MLflow experiment."""
    log_every: PositiveInt = 10
    """Updates between logged points; each is the mean since the last."""
    gallery_images: NonNegativeInt = 8
    """Images in each gallery picture; 0: no gallery."""
    system_metrics: bool = True
    """Whether CPU, memory and GPU use are recorded."""

    @field_validator("uri")
    @classmethod
    def _no_password(cls, uri: str | None) -> str | None:
        return refuse_password(uri, "MLFLOW_TRACKING_URI")


class ExperimentConfig(Config):
    """What the run is compared with."""

    name: str | None = None
    """A name for the run; unset: the name of its output folder."""
    controls: tuple[Control, ...] = ()
    """Students trained first with as many updates: by labels only, by plain KD, by KD on random transforms."""
    random: RandomAffineAugmentor = RandomAffineAugmentor()
    """The transforms of the control `random`."""
