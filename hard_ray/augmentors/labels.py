"""Labels of images that are mixed from two."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class MixedLabels:
    """Two labels for each image, and the share of the first."""

    first: Int[Tensor, " batch"]
    second: Int[Tensor, " batch"]
    share: Float[Tensor, " batch"]
    """Of the pixels of the image with the first label; the rest is the second's."""

    def larger(self) -> Int[Tensor, " batch"]:
        """The label with the larger share, for what needs one class; the first one at equal shares."""
        return torch.where(self.share >= 0.5, self.first, self.second)

    def __getitem__(self, rows: slice) -> MixedLabels:
        """The labels of some of the images."""
        return MixedLabels(self.first[rows], self.second[rows], self.share[rows])

    def tensor_split(self, count: int) -> list[MixedLabels]:
        """Divide the images into `count` parts, as a tensor of labels divides."""
        columns = (column.tensor_split(count) for column in (self.first, self.second, self.share))
        return [MixedLabels(*parts) for parts in zip(*columns, strict=True)]

    def shares(self, classes: int) -> Float[Tensor, "batch classes"]:
        """The share of each class in each image."""
        share = self.share[:, None]
        first, second = (one_hot(labels, classes).to(share.dtype) for labels in (self.first, self.second))
        return share * first + (1.0 - share) * second


Labels = Tensor | MixedLabels
"""One class for each image, shape (batch,), or two with their shares; -1: the image has no label."""


def one_hot(labels: Int[Tensor, " batch"], classes: int) -> Int[Tensor, "batch classes"]:
    """1 at the class of each image; nothing for an image without a label."""
    return F.one_hot(labels.clamp(min=0), classes) * (labels >= 0)[:, None]


def filled(labels: Labels, answers: Int[Tensor, " batch"]) -> Labels:
    """The labels, and the class in `answers` for images that lack one; of a mixed image, for both of its labels."""
    if isinstance(labels, MixedLabels):
        lacks = (labels.first < 0) | (labels.second < 0)
        first, second = (torch.where(lacks, answers, each) for each in (labels.first, labels.second))
        return MixedLabels(first, second, labels.share)
    return torch.where(labels < 0, answers, labels)
