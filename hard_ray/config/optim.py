"""Optimisers and schedules of timm, by timm's names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from hard_ray.config.base import Config, Epochs, Fraction


class OptimConfig(Config):
    """The student's optimiser, schedule and batch size."""

    opt: str = "sgd"
    """Name of a timm optimiser: sgd, adamw, lamb, ..."""
    lr: PositiveFloat = 0.05
    """Peak learning rate."""
    weight_decay: NonNegativeFloat = 5e-4
    """Weight decay; not applied to biases and norms."""
    momentum: Fraction = 0.9
    """Momentum, if the optimiser has one."""
    sched: Literal["cosine", "step", "multistep", "constant", "none"] = "cosine"
    """Name of a timm schedule; it steps after every update."""
    epochs: Epochs | None = None
    """Length of the training in epochs of student updates; give this or `steps`."""
    steps: PositiveInt | None = None
    """Length of the training in student updates; give this or `epochs`."""
    stretch: PositiveFloat = 1.0
    """Common factor of the length, the warm-up and every milestone."""
    warmup_epochs: NonNegativeFloat = 0.0
    """Epochs of linear warm-up."""
    warmup_lr: PositiveFloat = 1e-5
    """Learning rate at the start of the warm-up."""
    min_lr: NonNegativeFloat = 0.0
    """Learning rate at the end of a cosine."""
    decay_epochs: PositiveFloat = 90.0
    """Epochs between decays of `step`."""
    decay_milestones: tuple[PositiveFloat, ...] = (150, 180, 210)
    """Epochs at which `multistep` decays."""
    decay_rate: PositiveFloat = 0.1
    """Factor of each decay."""
    batch_size: PositiveInt = 64
    """Images per update, summed over all workers."""
    clip_grad: PositiveFloat | None = None
    """Largest gradient norm; unset: no clipping."""
    smoothing: Fraction = 0.0
    """Label smoothing of the cross-entropy terms."""
    model_ema: bool = False
    """Keep a moving average of the weights, and evaluate and export it."""
    model_ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9998
    """Decay of the moving average, per update."""

    @model_validator(mode="after")
    def _one_length(self) -> OptimConfig:
        if (self.epochs is None) == (self.steps is None):
            got = "neither" if self.epochs is None else f"epochs={self.epochs:g} and steps={self.steps}"
            raise ValueError(f"give exactly one of epochs and steps, got {got}; set the other to null")
        return self

    def total_updates(self, updates_per_epoch: int) -> int:
        """Length of the training in student updates, for an epoch of `updates_per_epoch`."""
        length = self.steps if self.steps is not None else (self.epochs or 0.0) * updates_per_epoch
        return max(1, round(length * self.stretch))
