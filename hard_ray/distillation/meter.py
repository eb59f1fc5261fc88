"""Signals of a training, added up over ranks between two lines of the log."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hard_ray.distillation.controller import Measurement
from hard_ray.distillation.step import Metrics
from hard_ray.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Signals:
    """What all ranks know of an update once its numbers have been added up."""

    measurement: Measurement
    stop: bool
    new_bad: bool
    diverged: bool


class Meter:
    """Sums on the device, read once per logged point."""

    def __init__(self, sums: dict[str, list[float]]) -> None:
        """`sums` holds a sum and a count for each metric."""
        self.sums = {name: torch.tensor(total) for name, (total, _) in sums.items()}
        self.counts = {name: int(count) for name, (_, count) in sums.items()}

    def add(self, metrics: Metrics) -> None:
        """Count one update."""
        for name, value in metrics.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
            self.counts[name] = self.counts.get(name, 0) + 1

    def read(self, ranks: Ranks, device: torch.device) -> dict[str, list[float]]:
        """Sum and count of each metric, as means over ranks; every rank calls this with the same metrics."""
        if not self.sums:
            return {}
        names = sorted(self.sums)
        stacked = torch.stack([self.sums[name].to(device).float() for name in names])
        means = (ranks.sum(stacked) / ranks.size).tolist()
        return {name: [mean, self.counts[name]] for name, mean in zip(names, means, strict=True)}

    def clear(self) -> None:
        """Start anew."""
        self.sums, self.counts = {}, {}
