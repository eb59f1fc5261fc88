"""Stops a training whose loss or weights are not finite, and writes the batch that caused it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hard_ray.distillation.checkpoints import Weights
from hard_ray.distillation.meter import Scalars
from hard_ray.distillation.objectives import label_context
from hard_ray.distillation.phases import Prepared
from hard_ray.errors import DivergedError
from hard_ray.networks.precision import to_array, to_pixels
from hard_ray.ranks import Ranks

LOSSES = ("train/loss", "augmentor/loss")
"""Metrics that must be finite."""


def diverged(metrics: Scalars) -> Tensor:
    """Whether a loss of an update is not finite; a scalar on the device, so that nothing waits for it."""
    losses = [value for name, value in metrics.items() if name in LOSSES]
    return ~torch.stack(losses).isfinite().all() if losses else torch.tensor(0.0)


@dataclass(slots=True)
class Guard:
    """Notices non-finite losses and weights."""

    folder: Path
    """Folder for the batch of a diverged update."""
    weights: Weights
    ranks: Ranks
    device: torch.device
    last: Prepared | None = None
    """The batch of the last update."""

    def refuse_loss(self, *, step: int) -> None:
        """Raise a DivergedError for the loss of update `step`, once there was an update in this process."""
        self._give_up(f"the loss of update {step} is", step)

    def check_weights(self, *, step: int) -> None:
        """Raise a DivergedError if a weight is not finite, as a finite loss can leave it; every rank calls this."""
        broken = torch.tensor(float(not self.weights.are_finite()), device=self.device)
        if self.ranks.sum(broken):
            self._give_up(f"the weights after update {step} are", step)
        scale = self.weights.loss_scale
        if scale is not None and scale.is_lost():
            self._give_up(f"the gradients of float16 before update {step}, whatever the scale of their loss, are", step)

    def _give_up(self, problem: str, step: int) -> None:
        """Write the last batch as `step-STEP-rank-RANK.npz` and raise."""
        if self.last is None:
            return
        last = self.last
        self.folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {name: to_array(values) for name, values in label_context(last.labels).items()}
        np.savez(
            self.folder / f"step-{step:08d}-rank-{self.ranks.rank}.npz",
            images=to_pixels(last.images),
            sample_ids=last.sample_ids,
            **arrays,
        )
        raise DivergedError(
            f"{problem} not finite; its images are in {self.folder}; lower optim.lr, give "
            "optim.clip_grad, or use runtime.amp_dtype=float32"
        )
