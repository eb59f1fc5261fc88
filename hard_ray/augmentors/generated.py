"""Images that were generated before training."""

from __future__ import annotations

import torch
from torch import Tensor

from hard_ray.augmentors.base import AugmentationInput, AugmentedView, Augmentor
from hard_ray.augmentors.boxes import boxes
from hard_ray.augmentors.partners import beta, partners, shares
from hard_ray.config.augmentor import GeneratedAugmentor


class Generated(Augmentor):
    """Takes the generated image of each image, which the data pipeline provides in the same view.

    Source: DAD, arXiv:2311.01441. With `join`, the clean and the generated images form one batch of twice the size,
    which mixup or CutMix mixes, as in the paper's released code.
    """

    config: GeneratedAugmentor

    def __init__(self, config: GeneratedAugmentor) -> None:
        super().__init__()
        self.config = config
        self.noise_dim = 1 if config.join is None else 7
        """Whether the generated image is taken; with `join`, also two partners, and four draws for the batch's mix."""

    def forward(self, batch: AugmentationInput) -> Tensor:
        """The generated images, or the clean ones where those are not drawn; at strength 0 the input tensor itself."""
        if self.config.strength == 0:
            return batch.images
        if batch.generated is None:
            raise RuntimeError("the batch has no generated images")
        taken = torch.special.ndtr(batch.noise[:, 0]) <= self.config.strength
        return torch.where(taken[:, None, None, None], batch.generated, batch.images)

    def view(self, batch: AugmentationInput) -> AugmentedView:
        """The images of `forward`; with `join`, the clean ones and then those, mixed: twice as many images."""
        found = self(batch)
        if self.config.join is None or found is batch.images:
            return AugmentedView(found)
        # 1. one batch of 2N images, each with a partner among all of them
        images = torch.cat([batch.images, found])
        partner = partners(torch.cat([batch.noise[:, 1], batch.noise[:, 2]]))
        # 2. mix them by one draw for the batch
        weight = self._own_weight(torch.special.ndtr(batch.noise[:1, 3:]), images)
        mixed = weight * images + (1.0 - weight) * images[partner]
        # 3. shares among the 2N images -> shares among the N, as image i and its generated one are both of source i
        both = torch.eye(len(batch.images), dtype=images.dtype, device=images.device).repeat(2, 1)
        own = weight.mean(dim=(1, 2, 3)).expand(len(images))
        return AugmentedView(mixed, shares(own, partner) @ both)

    def _own_weight(self, draws: Tensor, images: Tensor) -> Tensor:
        """The weight of an image's own pixels, from one draw for the batch."""
        share = beta(draws[:, 1], self.config.alpha)
        by_box = self.config.join == "cutmix" or (self.config.join == "either" and draws[0, 0] < 0.5)
        if not by_box:
            return share.view(-1, 1, 1, 1)
        inside = boxes(draws[:, 2:], (1.0 - share).sqrt(), images.shape[-2:])
        return (~inside).to(images.dtype)
