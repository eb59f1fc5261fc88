"""Cutout and CutMix, which change the pixels within a box."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hard_ray.augmentors.base import AugmentationInput, AugmentedView, Drawn, Mixing
from hard_ray.augmentors.partners import beta, partners, shares
from hard_ray.config.augmentor import CutmixAugmentor, CutoutAugmentor


class Cutout(Drawn):
    """Fills a square whose centre is drawn uniformly over the image, and which is cut off at the border.

    Source: DeVries and Taylor 2017, arXiv:1708.04552. Strength scales the area.
    """

    noise_dim = 2
    """The centre's row and column."""
    config: CutoutAugmentor

    def forward(self, batch: AugmentationInput) -> Tensor:
        """The images with a square of one colour; at strength 0 the input tensor itself."""
        if self.config.strength == 0:
            return batch.images
        draws = self.draws(batch.noise)
        side = draws.new_full((len(draws),), self.config.size * self.config.strength**0.5)
        inside = boxes(draws, side, batch.images.shape[-2:])
        return batch.images.masked_fill(inside, self.config.fill)


class Cutmix(Mixing):
    """Pastes a box of another image of the batch; its centre is drawn uniformly, and it is cut off at the border.

    Source: Yun et al. 2019, arXiv:1905.04899, section 3.1: the box has the share 1 - lambda of the area, with
    lambda from Beta(alpha, alpha), and sides in the image's proportion. The shares are those of the pixels that
    are actually replaced. The partners are a permutation without fixed points, so that every image changes.
    """

    noise_dim = 4
    """Partner, share, the centre's row and column."""
    config: CutmixAugmentor

    def view(self, batch: AugmentationInput) -> AugmentedView:
        """The mixed images, and the shares of both images in each; at strength 0 the input tensor itself."""
        if self.config.strength == 0:
            return AugmentedView(batch.images)
        partner, inside = partners(batch.noise[:, 0]), self._inside(batch)
        mixed = torch.where(inside, batch.images[partner], batch.images)
        return AugmentedView(mixed, shares(_outside(inside, mixed.dtype), partner))

    def _inside(self, batch: AugmentationInput) -> Bool[Tensor, "batch 1 height width"]:
        draws = self.draws(batch.noise)
        cut = 1.0 - beta(draws[:, 1], self.config.alpha)
        return boxes(draws[:, 2:], (self.config.strength * cut).sqrt(), batch.images.shape[-2:])

    def samples(self, batch: AugmentationInput) -> dict[str, Tensor]:
        """The share of its own pixels in each image."""
        return {"own_share": _outside(self._inside(batch), batch.images.dtype)}


def boxes(
    centre: Float[Tensor, "batch 2"], side: Float[Tensor, " batch"], size: torch.Size
) -> Bool[Tensor, "batch 1 height width"]:
    """The pixels inside a box in each image.

    `centre` (row and column) and `side` are shares of height and width; the side is rounded down to pixels.
    """
    # a little is added before rounding down, so that an exact number of pixels survives float32
    spans = []
    for axis in (0, 1):
        middle, pixels = (centre[:, axis] * size[axis]).long(), (side * size[axis] + 1e-4).long()
        spans.append(_span(middle - pixels // 2, pixels, size[axis]))
    return spans[0][:, :, None].logical_and(spans[1][:, None, :])[:, None]


def boxes_between(
    draws: Float[Tensor, "batch 4"], limits: tuple[float, float], size: torch.Size
) -> Bool[Tensor, "batch 1 height width"]:
    """The pixels inside a box that lies within each image, from uniform draws of its height, width, row and column.

    A side is a whole number of pixels from the first limit on and below the second, which are shares of the image's.

    Source: `cutmix_minmax` of timm. Where no number of pixels lies between the limits, the first one is taken.
    """
    spans = []
    for axis in (0, 1):
        low, high = (int(size[axis] * limit) for limit in limits)
        pixels = low + _whole(draws[:, axis], max(1, high - low))
        spans.append(_span(_whole(draws[:, 2 + axis], size[axis] - pixels + 1), pixels, size[axis]))
    return spans[0][:, :, None].logical_and(spans[1][:, None, :])[:, None]


def _whole(draws: Tensor, count: Tensor | int) -> Tensor:
    """Whole numbers from 0 to `count` - 1, from uniform draws."""
    return torch.minimum((draws * count).long(), torch.as_tensor(count - 1, device=draws.device))


def _span(first: Tensor, pixels: Tensor, length: int) -> Bool[Tensor, "batch length"]:
    place = torch.arange(length, device=first.device)
    return (place >= first[:, None]) & (place < (first + pixels)[:, None])


def _outside(inside: Bool[Tensor, "batch 1 height width"], dtype: torch.dtype) -> Float[Tensor, " batch"]:
    return 1.0 - inside.to(dtype).mean(dim=(1, 2, 3))
