"""What a student is measured on: each suite is a list of conditions that images are put under."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hard_ray.config.runtime import Suite

SHIFT_SHARES = (1 / 14, 1 / 7)
"""Shifts of the `shifted` suite as shares of the image's side: 2 and 4 pixels of 28."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Images moved by (right, down) pixels; zeros come in from outside."""

    name: str
    severity: str
    right: int = 0
    down: int = 0

    def apply(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The images under this condition, shape and type unchanged."""
        return shift(images, right=self.right, down=self.down)


def conditions(suite: Suite, *, img_size: int) -> tuple[Condition, ...]:
    """The conditions of a suite, for images of one size.

    `shifted` moves images diagonally, by two distances, to each of the four corners.
    """
    match suite:
        case "clean":
            return (Condition("clean", "0"),)
        case "shifted":
            pixels = sorted({max(1, round(share * img_size)) for share in SHIFT_SHARES})
            corners = [(-1, -1), (-1, 1), (1, -1), (1, 1)]
            return tuple(
                Condition("shift", str(distance), right * distance, down * distance)
                for distance in pixels
                for right, down in corners
            )


def shift(images: NDArray[np.uint8], *, right: int, down: int) -> NDArray[np.uint8]:
    """Images moved by whole pixels, zeros from outside; shape (batch, channels, height, width)."""
    if right == 0 and down == 0:
        return images
    height, width = images.shape[-2:]
    moved = np.zeros_like(images)
    target_y, source_y = _overlap(down, height)
    target_x, source_x = _overlap(right, width)
    moved[..., target_y, target_x] = images[..., source_y, source_x]
    return moved


def _overlap(distance: int, length: int) -> tuple[slice, slice]:
    """Where pixels go, and where they come from."""
    kept = max(0, length - abs(distance))
    if distance >= 0:
        return slice(length - kept, length), slice(0, kept)
    return slice(0, kept), slice(length - kept, length)
