"""What every augmentor is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hard_ray.config.augmentor import LearnedAugmentor


@dataclass(frozen=True, slots=True)
class AugmentationInput:
    """A batch in [0, 1] and the noise that belongs to its rows."""

    images: Float[Tensor, "batch channels height width"]
    noise: Float[Tensor, "batch noise"]


@dataclass(frozen=True, slots=True)
class AugmentedView:
    """A second view of a batch, and whose answers it should keep."""

    images: Float[Tensor, "batch channels height width"]
    sources: Float[Tensor, "batch batch"] | None = None
    """Row i: the share of each image of the batch in augmented image i, adding up to 1; None: its own alone."""


class Augmentor(nn.Module):
    """Maps images in [0, 1] and noise to a second, harder view of them.

    Everything random comes in as noise, so that a view is a function of the images, the noise and the
    parameters. At strength 0 the input tensor itself comes back.
    """

    noise_dim: int = 0
    """Normal noise values per image."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the augmentor's optimiser trains, with each group's own settings; empty: nothing is learned."""
        return []

    def forward(self, batch: AugmentationInput) -> Float[Tensor, "batch channels height width"]:
        """The augmented images that the student learns from, of the same shape and range."""
        raise NotImplementedError

    def augment(self, batch: AugmentationInput) -> AugmentedView:
        """The augmented images with their sources, as the augmentor's own phase needs them."""
        return AugmentedView(self(batch))

    def remember(self) -> None:
        """Called after each update of the augmentor."""
        return

    def samples(self, batch: AugmentationInput) -> dict[str, Float[Tensor, " batch"]]:
        """What is drawn for each image, one value each, by name: a shift, the share of the own image, ..."""
        del batch
        return {}

    def bounds_of_samples(self) -> dict[str, tuple[float, float]]:
        """The range of each name in `samples`."""
        return {}

    @torch.no_grad()
    def statistics(self, batch: AugmentationInput) -> dict[str, Tensor]:
        """Mean and standard deviation of every sampled value over the batch, by the names they are logged under."""
        found: dict[str, Tensor] = {}
        for name, values in self.samples(batch).items():
            found |= {f"{name}_mean": values.mean(), f"{name}_std": values.std(correction=0)}
        return found


def trained_group(config: LearnedAugmentor, parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """One group with the configuration's settings; none where strength 0 leaves the parameters without effect."""
    if config.strength == 0:
        return []
    return [{"params": list(parameters), "lr": config.lr, "weight_decay": config.weight_decay}]
