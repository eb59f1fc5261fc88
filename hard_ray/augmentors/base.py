"""What every augmentor is."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class AugmentationInput:
    """A batch in [0, 1] and the noise that belongs to its rows."""

    images: Float[Tensor, "batch channels height width"]
    noise: Float[Tensor, "batch noise"]


class Augmentor(nn.Module):
    """Maps images in [0, 1] and noise to a second, harder view of them.

    Everything random comes in as noise, so that a view is a function of the images, the noise and the
    parameters. At strength 0 the input tensor itself comes back.
    """

    noise_dim: int = 0
    """Normal noise values per image."""

    @property
    def learned(self) -> bool:
        """Whether there are parameters to train."""
        return any(parameter.requires_grad for parameter in self.parameters())

    def forward(self, batch: AugmentationInput) -> Float[Tensor, "batch channels height width"]:
        """The augmented images, of the same shape and range."""
        raise NotImplementedError

    def statistics(self, batch: AugmentationInput) -> dict[str, Tensor]:
        """What the augmentor does at present, by the names it is logged under; scalars."""
        del batch
        return {}
