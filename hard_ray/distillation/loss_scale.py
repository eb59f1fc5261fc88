"""The scale of a loss whose gradient is computed in float16, so that small numbers of it do not become zero."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from hard_ray.distillation.meter import Scalars
from hard_ray.networks.precision import Precision

SMALLEST = 2.0**-10
"""Below this a scale has no use: what is not finite then is so without any scale."""


class LossScale:
    """Torch's dynamic scale, with a count of the steps that it skipped.

    A gradient that is not finite in float16 makes no step, and halves the scale: the first updates of a training do
    this until the scale fits. Such an update counts like any other for the schedule, the moving average and the
    length of the training, as it does in timm.

    Source: Micikevicius et al. 2018, arXiv:1710.03740, section 3.2.
    """

    def __init__(self, device: torch.device, *, initial: float = 2.0**16) -> None:
        """`initial` is the first scale, a power of two."""
        self._scaler = torch.amp.GradScaler(device.type, init_scale=initial)
        self._one = torch.ones((), device=device)
        self.skipped = torch.zeros((), device=device)
        """Steps that were skipped so far; on the device, so that counting waits for nothing."""

    @classmethod
    def of(cls, precision: Precision) -> LossScale | None:
        """The scale for kernels of this precision; None: their gradients need none."""
        return cls(precision.device) if precision.dtype == torch.float16 else None

    def scale(self, loss: Tensor) -> Tensor:
        """The loss to go backward from."""
        scaled: Tensor = self._scaler.scale(loss)
        return scaled

    def unscale(self, optimizer: Optimizer) -> None:
        """Turn the gradients into those of the loss itself: before they are clipped."""
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: Optimizer) -> Scalars:
        """Make a step unless the gradient is not finite, and fit the scale; returns what is logged."""
        before = self.scale(self._one)
        self._scaler.step(optimizer)
        self._scaler.update()
        skipped = (self.scale(self._one) < before).float()
        self.skipped = self.skipped + skipped
        return {"amp/loss_scale": before, "amp/skipped": skipped}

    def is_lost(self) -> bool:
        """Whether updates were skipped one after the other, until no scale is left; this waits for the device."""
        return self._scaler.get_scale() < SMALLEST

    def state_dict(self) -> dict[str, Any]:
        """The state for a checkpoint, as plain numbers."""
        return {**self._scaler.state_dict(), "skipped": int(self.skipped)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        values = dict(state)
        self.skipped = torch.full_like(self.skipped, float(values.pop("skipped")))
        self._scaler.load_state_dict(values)
