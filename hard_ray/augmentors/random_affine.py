"""Uniformly random spatial transforms, the control for a learned distribution of them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hard_ray.augmentors.affine import PARAMETERS, Spatial


class RandomAffine(Spatial):
    """Draws a shift, rotation, scale and shear for each image, uniformly within the bounds of HARD-Affine.

    The parameters are those of `hard_ray.augmentors.affine`: the logarithm of the magnification and the slope of the
    shear are uniform.
    """

    noise_dim = len(PARAMETERS)

    def sample(self, noise: Float[Tensor, "batch 5"]) -> Float[Tensor, "batch 5"]:
        """Transform parameters in the order of `PARAMETERS`, uniform through the normal distribution function."""
        uniform: Tensor = torch.special.ndtr(noise)
        return self._within_bounds(2.0 * uniform - 1.0)
