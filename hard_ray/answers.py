"""What is asked of a teacher and what it answers, as arrays.

Nothing here imports torch: those who only carry requests and answers start without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8] | NDArray[np.float32]
"""Images, shape (batch, channels, height, width): 0..255 as uint8, or [0, 1] as float32."""

ContextArrays = Mapping[str, NDArray[np.generic]]
"""What an objective wants beside the images: one row per image under each name."""

Answer = TypeVar("Answer", covariant=True)


@dataclass(frozen=True, slots=True)
class GradientAnswer:
    """What `loss_and_grad` gives back, one row per image."""

    loss: NDArray[np.float32]
    """Shape (batch,): the objective's value."""
    grad: NDArray[np.float32]
    """Shape of the images: d loss_i / d image_i, for images in [0, 1]."""
    logits: NDArray[np.float32]
    """Shape (batch, classes)."""


@dataclass(frozen=True, slots=True)
class Reply(Generic[Answer]):
    """An answer, and who gave it."""

    identity: str
    answer: Answer


class Ticket(Protocol[Answer]):
    """A request that was sent."""

    def result(self) -> Answer:
        """Wait for the answer."""
        ...
