"""Counts that add up over batches and ranks, and the metrics computed from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

ECE_BINS = 15


@dataclass(frozen=True, slots=True)
class Metrics:
    """One network under one condition, or a mean over conditions; in percent, except the loss."""

    top1: float
    ece: float
    """Expected calibration error."""
    n: int
    """Images, counted once per condition."""
    agreement: float | None = None
    """Share of images on which student and teacher predict the same class."""
    loss: float = float("nan")
    """Mean cross-entropy to the labels, in nats."""

    def to_json(self) -> dict[str, Any]:
        """The numbers that are known."""
        return {key: value for key, value in asdict(self).items() if value is not None}


class Counts:
    """Sums over images: correct, agreeing, cross-entropy, and the calibration histogram."""

    def __init__(self) -> None:
        self.values = torch.zeros(4 + 3 * ECE_BINS, dtype=torch.float64)

    def add(
        self,
        logits: Float[Tensor, "batch classes"],
        labels: Int[Tensor, " batch"],
        teacher: Float[Tensor, "batch classes"] | None = None,
    ) -> None:
        """Count one batch."""
        confidence, guess = logits.float().softmax(dim=1).max(dim=1)
        correct = (guess == labels).double()
        agreeing = (guess == teacher.argmax(dim=1)).double() if teacher is not None else torch.zeros_like(correct)
        bins = (confidence * ECE_BINS).long().clamp(max=ECE_BINS - 1)
        histogram = torch.zeros(3, ECE_BINS, dtype=torch.float64, device=logits.device)
        for row, weight in enumerate((torch.ones_like(correct), correct, confidence.double())):
            histogram[row].index_add_(0, bins, weight)
        entropy = F.cross_entropy(logits.double(), labels, reduction="sum")
        counted = torch.stack([correct.new_tensor(len(labels)), correct.sum(), agreeing.sum(), entropy])
        self.values += torch.cat([counted, histogram.flatten()]).cpu()

    def plus(self, other: Counts) -> Counts:
        """The sums of both."""
        together = Counts()
        together.values = self.values + other.values
        return together

    def reliability(self) -> list[list[float]]:
        """The number, mean confidence and accuracy (in percent) of the images in each bin that has any."""
        bins = self.values[4:].view(3, ECE_BINS).T.tolist()
        return [[n, 100.0 * confidence / n, 100.0 * right / n] for n, right, confidence in bins if n]

    def metrics(self, *, with_teacher: bool = False) -> Metrics:
        """Accuracy, calibration and loss; agreement only `with_teacher`.

        The calibration error is the mean over 15 bins of equal width of |accuracy - confidence|, weighted by the
        images in each: Guo et al. 2017, arXiv:1706.04599, equation 3.
        """
        n, correct, agreeing, entropy = self.values[:4].tolist()
        _, right, confidence = self.values[4:].view(3, ECE_BINS)
        gap = float((right - confidence).abs().sum())
        total = max(n, 1.0)
        return Metrics(
            top1=100.0 * correct / total,
            ece=100.0 * gap / total,
            n=int(n),
            agreement=100.0 * agreeing / total if with_teacher else None,
            loss=entropy / total,
        )


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """A suite's metrics, and its top-1 in percent by condition and severity."""

    metrics: Metrics
    by: dict[str, dict[str, float]]

    def to_json(self) -> dict[str, Any]:
        """The numbers as `evaluation.json` holds them."""
        is_detailed = len(self.by) > 1 or any(len(severities) > 1 for severities in self.by.values())
        return self.metrics.to_json() | ({"by": self.by} if is_detailed else {})
