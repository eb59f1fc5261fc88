"""Numbers of a training: seconds, signals of each update, and sums between two lines of the log."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hard_ray.distillation.controller import PhaseSignals
from hard_ray.distillation.messages import Answer, Ticket
from hard_ray.ranks import Ranks

Scalars = dict[str, Tensor]
"""Scalars on the training device, by the names they are logged under."""


@dataclass(slots=True)
class Clock:
    """Seconds spent on each kind of work since the start of the run."""

    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, since: float) -> None:
        """Count the time from `since` (of time.perf_counter) to now."""
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - since

    def wait(self, ticket: Ticket[Answer]) -> Answer:
        """Wait for the teacher's answer and count the time as `teacher_wait`."""
        start = time.perf_counter()
        answer = ticket.result()
        self.add("teacher_wait", start)
        return answer


@dataclass(frozen=True, slots=True)
class Signals:
    """Summary of one update that is the same on every rank."""

    phase: PhaseSignals
    stop: bool = False
    new_bad: bool = False
    diverged: bool = False


class SignalSum:
    """Sums the signals of an update over ranks; they are read when the next update begins."""

    def __init__(self, ranks: Ranks, device: torch.device, pending: PhaseSignals | None) -> None:
        """`pending` are signals from before a resume, which the controller has not seen."""
        self.ranks = ranks
        self.device = device
        self.pending = pending
        self._sums: _Sent | None = None
        self._sums_before: _Sent | None = None

    def send(self, metrics: Mapping[str, Tensor], *, stop: bool, new_bad: int, diverged: Tensor) -> None:
        """Start the sum over ranks; every rank calls this after each update."""
        absent = torch.full((), float("nan"), device=self.device)  # made there: a copy to a GPU would be waited for
        values = [metrics.get(name, absent) for name in ("train/disagreement", "train/kd_loss")]
        flags = [*(torch.full((), float(flag), device=self.device) for flag in (stop, new_bad)), diverged]
        self._sums_before = self._sums
        self._sums = _Sent(self.ranks.sum(torch.stack([value.float() for value in (*values, *flags)])))

    def read(self) -> Signals | None:
        """Signals of the last update; None before the first one."""
        return self._signals(self._sums)

    def read_before(self) -> Signals | None:
        """Signals of the last update but one: their sums are there while the last one is computed."""
        return self._signals(self._sums_before)

    def _signals(self, sums: _Sent | None) -> Signals | None:
        if sums is None:
            return Signals(self.pending) if self.pending else None
        disagreement, clean, stop, bad, diverged = sums.values()
        size = self.ranks.size
        phase = PhaseSignals(_known(disagreement / size), _known(clean / size))
        return Signals(phase, stop=stop > 0, new_bad=bad > 0, diverged=diverged > 0)


class _Sent:
    """Numbers of an update on their way to main memory, beside the kernels of the next one."""

    def __init__(self, numbers: Tensor) -> None:
        self._numbers, self._arrival = numbers, None
        if numbers.is_cuda:
            self._numbers = torch.empty_like(numbers, device="cpu", pin_memory=True)
            self._numbers.copy_(numbers, non_blocking=True)
            self._arrival = torch.cuda.Event()
            self._arrival.record()

    def values(self) -> list[float]:
        """The numbers, once they are there."""
        if self._arrival is not None:
            self._arrival.synchronize()
        values: list[float] = self._numbers.tolist()
        return values


class Meter:
    """Sums on the device, read once per logged point."""

    def __init__(self, sums: dict[str, list[float]]) -> None:
        """`sums` holds a sum and a count for each metric."""
        self.sums = {name: torch.tensor(total) for name, (total, _) in sums.items()}
        self.counts = {name: int(count) for name, (_, count) in sums.items()}

    def add(self, metrics: Scalars) -> None:
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
        """Reset all sums and counts."""
        self.sums, self.counts = {}, {}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
