"""T. stddev: a score of augmentations for distillation that needs the teacher alone."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hard_ray.ranks import Ranks

ITERATIONS = 5
"""Batches of clean images, and as many of augmented ones, whose mean probabilities are one group."""
WATCHED_GROUPS = 20
"""Groups in a run's running value: those of the last 100 updates."""


def t_stddev(groups: Float[Tensor, "groups classes"]) -> Float[Tensor, ""]:
    """The standard deviation over groups of each class's mean probability, as a mean over classes.

    The lower it is, the lower the loss of a student that learns from the augmentation. It depends on the number of
    images in a group, so only values with equal groups can be compared.

    Source: arXiv:2012.02909, section 4: 5 iterations of 64 images and their augmentations are a group of 640. The
    divisor, the number of groups less one, is ours.
    """
    return groups.std(dim=0, correction=1).mean()


class StddevMeter:
    """Running T. stddev of a run's training images, over the last groups."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._seen = 0
        self._groups: list[Tensor] = []

    def add(
        self, clean: Float[Tensor, "batch classes"], augmented: Float[Tensor, "views classes"], ranks: Ranks
    ) -> Float[Tensor, ""] | None:
        """Add the teacher's logits on both views; the value at the end of a group of all ranks. All ranks call this."""
        both = (clean.softmax(dim=1).mean(dim=0) + augmented.softmax(dim=1).mean(dim=0)) / (2 * ITERATIONS)
        self._sum = both if self._sum is None else self._sum + both
        self._seen += 1
        if self._seen < ITERATIONS:
            return None
        self._groups = [*self._groups[1 - WATCHED_GROUPS :], ranks.sum(self._sum) / ranks.size]
        self._sum, self._seen = None, 0
        if len(self._groups) < WATCHED_GROUPS:
            return None
        return t_stddev(torch.stack(self._groups))
