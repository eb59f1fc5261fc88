"""Counts that add up over batches and ranks, and the metrics computed from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hard_ray.maths import losses
from hard_ray.maths.tokens import EmbeddingDistance

ECE_BINS = 15


@dataclass(frozen=True, slots=True)
class Metrics:
    """One network under one condition, or a mean over conditions; in percent, except the loss.

    None: unknown, as accuracy is where no image has a label.
    """

    top1: float | None
    ece: float | None
    """Expected calibration error."""
    n: int
    """Images, counted once per condition."""
    agreement: float | None = None
    """Share of images on which student and teacher predict the same class."""
    loss: float | None = None
    """Mean cross-entropy to the labels, in nats; where no image has a label, mean divergence KL from the teacher;
    where there are no classes, mean distance from it, 1 - cosine and that of tokens where they are compared."""

    cosine: float | None = None
    """Mean cosine similarity of the embeddings of student and teacher, where there are no classes."""

    @property
    def score(self) -> float:
        """What the network is judged by: top-1, without labels agreement with the teacher, without classes cosine."""
        found = next((each for each in (self.top1, self.agreement, self.cosine) if each is not None), None)
        if found is None:
            raise ValueError("neither labels nor a teacher: there is nothing to judge a network by")
        return found

    def to_json(self) -> dict[str, Any]:
        """The numbers that are known."""
        return {key: value for key, value in asdict(self).items() if value is not None}


class Counts:
    """Sums over images: all, correct, agreeing, cross-entropy, the calibration histogram, labelled, and divergence.

    Those of labels are over the images that have one.
    """

    def __init__(self) -> None:
        self.values = torch.zeros(4 + 3 * ECE_BINS + 2, dtype=torch.float64)

    def add(
        self,
        logits: Float[Tensor, "batch classes"],
        labels: Int[Tensor, " batch"],
        teacher: Float[Tensor, "batch classes"] | None = None,
    ) -> None:
        """Count one batch; the label -1 says that an image has none."""
        labelled = (labels >= 0).double()
        confidence, guess = logits.float().softmax(dim=1).max(dim=1)
        correct = (guess == labels).double()
        agreeing = (guess == teacher.argmax(dim=1)).double() if teacher is not None else torch.zeros_like(correct)
        bins = (confidence * ECE_BINS).long().clamp(max=ECE_BINS - 1)
        histogram = torch.zeros(3, ECE_BINS, dtype=torch.float64, device=logits.device)
        for row, weight in enumerate((labelled, correct, labelled * confidence.double())):
            histogram[row].index_add_(0, bins, weight)
        entropy = F.cross_entropy(logits.double(), labels, reduction="sum", ignore_index=-1)
        divergence = torch.zeros_like(entropy)
        if teacher is not None and not labelled.all():
            divergence = losses.divergence(teacher.double(), logits.double(), temperature=1.0).sum()
        counted = torch.stack([correct.new_tensor(len(labels)), correct.sum(), agreeing.sum(), entropy])
        self.values += torch.cat([counted, histogram.flatten(), torch.stack([labelled.sum(), divergence])]).cpu()

    def plus(self, other: Counts) -> Counts:
        """The sums of both."""
        together = type(self)()
        together.values = self.values + other.values
        return together

    @property
    def has_labels(self) -> bool:
        """Whether an image has a label; so it is said of no images, too."""
        return bool(self.values[-2]) or not self.values[0]

    def _histogram(self) -> Float[Tensor, "3 bins"]:
        return self.values[4 : 4 + 3 * ECE_BINS].view(3, ECE_BINS)

    def reliability(self) -> list[list[float]]:
        """The number, mean confidence and accuracy (in percent) of the images in each bin that has any."""
        bins = self._histogram().T.tolist()
        return [[n, 100.0 * confidence / n, 100.0 * right / n] for n, right, confidence in bins if n]

    def metrics(self, *, with_teacher: bool = False) -> Metrics:
        """Accuracy, calibration and loss, where images have labels; agreement only `with_teacher`.

        The calibration error is the mean over 15 bins of equal width of |accuracy - confidence|, weighted by the
        images in each: Guo et al. 2017, arXiv:1706.04599, equation 3.
        """
        n, correct, agreeing, entropy = self.values[:4].tolist()
        labelled, divergence = self.values[-2:].tolist()
        agreement = 100.0 * agreeing / max(n, 1.0) if with_teacher else None
        if not self.has_labels:
            return Metrics(None, None, int(n), agreement, divergence / n if with_teacher else None)
        _, right, confidence = self._histogram()
        gap = float((right - confidence).abs().sum())
        total = max(labelled, 1.0)
        return Metrics(100.0 * correct / total, 100.0 * gap / total, int(n), agreement, entropy / total)


class EmbeddingCounts(Counts):
    """Sums over images of embeddings, which have no classes: all, and the distances from the teacher.

    With tokens, the distance D is a third sum beside that of the embeddings alone.
    """

    def __init__(self, distance: EmbeddingDistance | None = None) -> None:
        self.distance = distance or EmbeddingDistance()
        self.values = torch.zeros(2 if self.distance.layout is None else 3, dtype=torch.float64)

    def plus(self, other: Counts) -> EmbeddingCounts:
        """The sums of both."""
        together = EmbeddingCounts(self.distance)
        together.values = self.values + other.values
        return together

    def add(
        self,
        logits: Float[Tensor, "batch values"],
        labels: Int[Tensor, " batch"],
        teacher: Float[Tensor, "batch values"] | None = None,
    ) -> None:
        """Count a batch of answers beside those of the teacher, unless it is the teacher's own; no label counts."""
        distances = logits.new_zeros(len(self.values) - 1, dtype=torch.float64)
        if teacher is not None:
            one, other = (self.distance.embedding(each).double() for each in (teacher, logits))
            distances[:] = losses.cosine_distance(one, other).sum()
            if self.distance.layout is not None:
                distances[1] += self.distance.w_tokens * self.distance.of_tokens(teacher, logits).double().sum()
        self.values += torch.cat([distances.new_tensor([len(labels)]), distances]).cpu()

    @property
    def has_labels(self) -> bool:
        """False: labels are of classes."""
        return False

    def reliability(self) -> list[list[float]]:
        """Nothing: an embedding has no confidence."""
        return []

    def metrics(self, *, with_teacher: bool = False) -> Metrics:
        """The cosine similarity in percent, and the distance as the loss; both only `with_teacher`."""
        n, *distances = self.values.tolist()
        if not with_teacher:
            return Metrics(None, None, int(n))
        cosine, loss = distances[0] / max(n, 1.0), distances[-1] / max(n, 1.0)
        return Metrics(None, None, int(n), loss=loss, cosine=100.0 * (1.0 - cosine))


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """A suite's metrics, and what it is judged by in percent, by condition and severity."""

    metrics: Metrics
    by: dict[str, dict[str, float]]

    def to_json(self) -> dict[str, Any]:
        """The numbers as `evaluation.json` holds them."""
        is_detailed = len(self.by) > 1 or any(len(severities) > 1 for severities in self.by.values())
        return self.metrics.to_json() | ({"by": self.by} if is_detailed else {})
