"""Images that were generated beforehand."""

from __future__ import annotations

import torch
from torch import Tensor

from hard_ray.augmentors.base import AugmentationInput, AugmentedView, Augmentor
from hard_ray.augmentors.boxes import boxes
from hard_ray.augmentors.partners import beta, partners, shares
from hard_ray.config.augmentor import GeneratedAugmentor


class Generated(Augmentor):
    """Takes each image's generated one, which the data pipeline put beside it, in the same crop and flip.

    Source: DAD, arXiv:2311.01441. With `join`, the clean and the generated images are one batch of twice the size
    that mixup or CutMix mixes, as in the paper's released code.
    """

    config: GeneratedAugmentor

    def __init__(self, config: GeneratedAugmentor) -> None:
        """Nothing here is trained."""
        super().__init__()
        self.config = config
        self.noise_dim = 1 if config.join is None else 7
        """Whether the generated image is taken; joined: two partners, and one draw of which mix and what for all."""

    def forward(self, batch: AugmentationInput) -> Tensor:
        """The generated images, and the clean ones that were not drawn; at strength 0 the input tensor itself."""
        if self.config.strength == 0:
            return batch.images
        if batch.generated is None:
            raise RuntimeError("the batch has no generated images")
        taken = torch.special.ndtr(batch.noise[:, 0]) <= self.config.strength
        return torch.where(taken[:, None, None, None], batch.generated, batch.images)

    def view(self, batch: AugmentationInput) -> AugmentedView:
        """The same; joined, twice as many images: the clean ones and then the generated ones, mixed."""
        found = self(batch)
        if self.config.join is None or found is batch.images:
            return AugmentedView(found)
        images = torch.cat([batch.images, found])
        partner = partners(torch.cat([batch.noise[:, 1], batch.noise[:, 2]]))
        weight = self._own_weight(torch.special.ndtr(batch.noise[:1, 3:]), images)
        mixed = weight * images + (1.0 - weight) * images[partner]
        both = torch.eye(len(batch.images), dtype=images.dtype, device=images.device).repeat(2, 1)
        own = weight.mean(dim=(1, 2, 3)).expand(len(images))
        return AugmentedView(mixed, shares(own, partner) @ both)

    def _own_weight(self, draws: Tensor, images: Tensor) -> Tensor:
        """The own image's weight at every pixel, one draw for the batch."""
        share = beta(draws[:, 1], self.config.alpha)
        by_box = self.config.join == "cutmix" or (self.config.join == "either" and draws[0, 0] < 0.5)
        if not by_box:
            return share.view(-1, 1, 1, 1)
        inside = boxes(draws[:, 2:], (1.0 - share).sqrt(), images.shape[-2:])
        return (~inside).to(images.dtype)
