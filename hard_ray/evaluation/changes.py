"""Shifts, rotations and scales of the images that a network is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import affine, rotate

from hard_ray.maths.noise import uniform

CORNERS = ((-1, -1), (-1, 1), (1, -1), (1, 1))
"""The diagonal directions: (right, down)."""


class Change(Protocol):
    """A function of each image and its sample id alone. Equal changes are made, and measured, once."""

    @property
    def slow(self) -> bool:
        """Whether the change takes so long that only a sample of the images is measured."""

    def __call__(self, images: NDArray[np.uint8], sample_ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The changed images; shape (batch, channels, height, width), as given."""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The images as they are."""

    whole: bool = True
    """Whether all images are measured; a point of a curve uses the sample of the curve's other points."""
    slow: ClassVar[bool] = False

    def __call__(self, images: NDArray[np.uint8], sample_ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the images as they are."""
        del sample_ids
        return images


@dataclass(frozen=True, slots=True)
class Shift:
    """Moves all images by (right, down) pixels and fills with zeros."""

    right: int
    down: int
    slow: ClassVar[bool] = False

    def __call__(self, images: NDArray[np.uint8], sample_ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Move the images."""
        del sample_ids
        return shift(images, right=self.right, down=self.down)


@dataclass(frozen=True, slots=True)
class DiagonalShift:
    """Moves each image by the same distance on both axes, towards a corner chosen by its sample id; fills with zeros.

    The four corners are equally likely, and an image goes to the same one at every distance.
    """

    distance: int
    slow: ClassVar[bool] = False

    def __call__(self, images: NDArray[np.uint8], sample_ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Move the images."""
        moved, corners = np.empty_like(images), corners_of(sample_ids)
        for number, (right, down) in enumerate(CORNERS):
            rows = corners == number
            moved[rows] = shift(images[rows], right=right * self.distance, down=down * self.distance)
        return moved


@dataclass(frozen=True, slots=True)
class Rotation:
    """Rotates all images about their centre, anticlockwise; bilinear, filled with zeros."""

    degrees: float
    slow: ClassVar[bool] = False

    def __call__(self, images: NDArray[np.uint8], sample_ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Rotate the images."""
        del sample_ids
        turned: NDArray[np.uint8] = rotate(
            torch.tensor(images), self.degrees, interpolation=InterpolationMode.BILINEAR
        ).numpy()
        return turned


@dataclass(frozen=True, slots=True)
class Scale:
    """Enlarges all images about their centre by a factor, or shrinks them below 1; bilinear, filled with zeros."""

    factor: float
    slow: ClassVar[bool] = False

    def __call__(self, images: NDArray[np.uint8], sample_ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Enlarge or shrink the images."""
        del sample_ids
        scaled: NDArray[np.uint8] = affine(
            torch.tensor(images),
            angle=0.0,
            translate=[0, 0],
            scale=self.factor,
            shear=[0.0, 0.0],
            interpolation=InterpolationMode.BILINEAR,
        ).numpy()
        return scaled


def corners_of(sample_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index into `CORNERS` of the corner that each image moves to."""
    draws = uniform("shift corner", seed=0, epochs=np.zeros_like(sample_ids), sample_ids=sample_ids, count=1)
    return (draws[:, 0] * len(CORNERS)).astype(np.int64)


def shift(images: NDArray[np.uint8], *, right: int, down: int) -> NDArray[np.uint8]:
    """Move images by whole pixels and fill with zeros; shape (batch, channels, height, width)."""
    if right == 0 and down == 0:
        return images
    height, width = images.shape[-2:]
    moved = np.zeros_like(images)
    target_y, source_y = _overlap(down, height)
    target_x, source_x = _overlap(right, width)
    moved[..., target_y, target_x] = images[..., source_y, source_x]
    return moved


def _overlap(distance: int, length: int) -> tuple[slice, slice]:
    """Target and source of a move along one axis."""
    kept = max(0, length - abs(distance))
    if distance >= 0:
        return slice(length - kept, length), slice(0, kept)
    return slice(0, kept), slice(length - kept, length)
