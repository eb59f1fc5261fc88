"""Uniformly random spatial transforms: what a learned distribution of them is compared with."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hard_ray.augmentors.affine import PARAMETERS, bounds_of, transform
from hard_ray.augmentors.base import AugmentationInput, Augmentor
from hard_ray.config.augmentor import RandomAffineAugmentor


class RandomAffine(Augmentor):
    """Draws a shift, rotation, scale and shear for each image, uniformly within the bounds of HARD-Affine.

    The parameters are those of `hard_ray.augmentors.affine`: what is uniform is the logarithm of the magnification
    and the slope of the shear.
    """

    noise_dim = len(PARAMETERS)
    bounds: Tensor

    def __init__(self, config: RandomAffineAugmentor) -> None:
        """Nothing here is trained."""
        super().__init__()
        self.config = config
        self.register_buffer("bounds", bounds_of(config), persistent=False)

    def sample(self, noise: Float[Tensor, "batch 5"]) -> Float[Tensor, "batch 5"]:
        """Transform parameters in the order of `PARAMETERS`: the normal distribution function makes noise uniform."""
        uniform: Tensor = torch.special.ndtr(noise)
        return (2.0 * uniform - 1.0) * self.bounds * self.config.strength

    def forward(self, batch: AugmentationInput) -> Tensor:
        """The transformed images; at strength 0 the input tensor itself."""
        if self.config.strength == 0:
            return batch.images
        return transform(batch.images, self.sample(batch.noise), padding=self.config.padding)

    def samples(self, batch: AugmentationInput) -> dict[str, Tensor]:
        """Shifts in half sides, angles in radians, the logarithm of the magnification, the shear's slope."""
        return dict(zip(PARAMETERS, self.sample(batch.noise).unbind(dim=1), strict=True))

    def bounds_of_samples(self) -> dict[str, tuple[float, float]]:
        """The bounds at this strength."""
        reach = (self.bounds * self.config.strength).tolist()
        return {name: (-bound, bound) for name, bound in zip(PARAMETERS, reach, strict=True)}
