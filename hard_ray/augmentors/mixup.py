"""Mixup: a weighted mean of two images."""

from __future__ import annotations

from torch import Tensor

from hard_ray.augmentors.base import AugmentationInput, AugmentedView, Mixing
from hard_ray.augmentors.partners import beta, partners, shares
from hard_ray.config.augmentor import MixupAugmentor


class Mixup(Mixing):
    """Blends each image with another of the batch.

    Source: Zhang et al. 2017, arXiv:1710.09412. The partners are a permutation without fixed points.
    """

    noise_dim = 2
    """Partner and share."""
    config: MixupAugmentor

    def view(self, batch: AugmentationInput) -> AugmentedView:
        """The blended images, and the shares of both images in each; at strength 0 the input tensor itself."""
        if self.config.strength == 0:
            return AugmentedView(batch.images)
        partner, own = partners(batch.noise[:, 0]), self._own(batch)
        weight = own[:, None, None, None]
        mixed = weight * batch.images + (1.0 - weight) * batch.images[partner]
        return AugmentedView(mixed, shares(own, partner))

    def _own(self, batch: AugmentationInput) -> Tensor:
        drawn = beta(self.draws(batch.noise)[:, 1], self.config.alpha)
        return 1.0 - self.config.strength * (1.0 - drawn)

    def samples(self, batch: AugmentationInput) -> dict[str, Tensor]:
        """The weight of the image itself."""
        return {"own_share": self._own(batch)}
