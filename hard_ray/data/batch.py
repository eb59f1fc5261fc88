"""A batch of images and labels, as the data pipeline hands it to training and evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's part of an update, in the order of the schedule."""

    images: NDArray[np.uint8]
    """Shape (batch, channels, height, width)."""
    labels: NDArray[np.int64]
    sample_ids: NDArray[np.int64]
    epochs: NDArray[np.int64]
    bad: tuple[str, ...] = ()
    """Names of the unreadable images that were found while this batch was made."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why each of them cannot be read."""
    generated: NDArray[np.uint8] | None = None
    """The generated image of each image, if the run uses a generated set; shape as `images`."""
    splits: NDArray[np.uint8] | None = None
    """Further views of each image, if `data.augment.splits` is set; shape (batch, splits - 1, channels, height, width).
    `images` are then the crops without other operations."""

    def __len__(self) -> int:
        return len(self.labels)


Pixels = NDArray[np.uint8] | NDArray[np.float32]
"""Images, shape (batch, channels, height, width): 0..255 as uint8, or [0, 1] as float32."""
