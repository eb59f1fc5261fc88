"""Flip, and crop with flip: the standard view, applied once more."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hard_ray.augmentors.base import AugmentationInput, Drawn
from hard_ray.config.augmentor import CropFlipAugmentor


class Flip(Drawn):
    """Mirrors images left to right with probability 1/2, times the strength."""

    noise_dim = 1

    def forward(self, batch: AugmentationInput) -> Tensor:
        """The images, some mirrored; at strength 0 the input tensor itself."""
        if self.config.strength == 0:
            return batch.images
        mirrored = self.draws(batch.noise)[:, 0] < 0.5 * self.config.strength
        return torch.where(mirrored[:, None, None, None], batch.images.flip(-1), batch.images)


class CropFlip(Drawn):
    """Crops the padded image at random, and mirrors it with probability 1/2.

    Source: the standard view of CIFAR (He et al. 2015, arXiv:1512.03385, section 4.2), which arXiv:2012.02909
    applies a second time.
    """

    noise_dim = 4
    """Whether the view is taken, the crop's row and column, and whether it is mirrored."""
    config: CropFlipAugmentor

    def forward(self, batch: AugmentationInput) -> Tensor:
        """The images, cropped and mirrored where that is drawn; at strength 0 the input tensor itself."""
        if self.config.strength == 0:
            return batch.images
        images, draws = batch.images, self.draws(batch.noise)
        # 1. pad, and draw the corner of each image's crop
        count, _, height, width = images.shape
        reach = round(self.config.padding * height)
        padded = F.pad(images, (reach, reach, reach, reach))
        down, right = ((draws[:, column] * (2 * reach + 1)).long().clamp(max=2 * reach) for column in (1, 2))
        # 2. the crop's rows and columns; mirrored, the columns run backwards
        rows = down[:, None] + torch.arange(height, device=images.device)
        columns = right[:, None] + torch.arange(width, device=images.device)
        columns = torch.where(draws[:, 3:] < 0.5, columns.flip(1), columns)
        # 3. gather the crops; indexing moves the channels last
        number = torch.arange(count, device=images.device)[:, None, None]
        cropped = padded[number, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        taken = draws[:, 0] <= self.config.strength
        return torch.where(taken[:, None, None, None], cropped, images)
