"""Mixup and CutMix of the main view, whose mixture every network and every second view then sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from hard_ray.augmentors.boxes import boxes, boxes_between
from hard_ray.augmentors.labels import MixedLabels
from hard_ray.augmentors.partners import beta, partners
from hard_ray.config.mix import MixConfig
from hard_ray.networks.precision import to_device

DRAWS = 8
"""Normal noise values per image: partner, whether it is mixed, which way, share, and four for the box."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """How each image of a batch is mixed with another: x = w x_i + (1 - w) x_j at every pixel."""

    partner: Int[Tensor, " batch"]
    """The number j of the other image."""
    weight: Float[Tensor, "#batch 1 #height #width"]
    """The weight w of the image's own pixels."""

    def images(self, images: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Mix images, or others that belong to them, such as generated ones."""
        weight = self.weight.to(images.dtype)
        return weight * images + (1.0 - weight) * images[self.partner]

    def labels(self, labels: Int[Tensor, " batch"]) -> MixedLabels:
        """The labels of the mixed images, with the shares of the pixels that are really mixed."""
        share = self.weight.mean(dim=(1, 2, 3)).expand(len(labels))
        return MixedLabels(labels, labels[self.partner], share)


@dataclass(frozen=True, slots=True)
class MainMix:
    """Draws mixtures as timm's Mixup does, from noise that is a function of (seed, epoch, sample id).

    Source: Zhang et al. 2017, arXiv:1710.09412; Yun et al. 2019, arXiv:1905.04899; the choice between them and
    `cutmix_minmax` are timm's (timm.data.mixup.Mixup), and so is the share: that of the pixels outside the box, once it
    is cut off at the border. timm pairs a batch with itself in reverse; here the partners are a permutation without
    fixed points that is drawn, so that every image changes and batches of odd size can be mixed.
    """

    config: MixConfig

    def __call__(self, noise: Float[Tensor, "batch draws"], size: torch.Size, device: torch.device) -> Mixture | None:
        """Draw a mixture for images of `size`, height and width; None: nothing of this batch is mixed.

        `noise` lies in main memory, where what happens is decided; the mixture is made on `device`.
        """
        rows = noise[:1] if self.config.mode == "batch" else noise
        draws = torch.special.ndtr(rows[:, 1:].double())
        mixed, by_box = draws[:, 0] < self.config.prob, self._by_box(draws[:, 1])
        if not mixed.any():
            return None
        share = beta(draws[:, 2], self.config.mixup) if self.config.mixup > 0 else draws[:, 2]
        weight = _per_image(_sent(share.float(), device))
        if by_box.any():
            outside = ~self._inside(draws, size, device)
            weight = torch.where(_per_image(_sent(by_box, device)), outside.to(weight.dtype), weight)
        if not mixed.all():
            weight = torch.where(_per_image(_sent(mixed, device)), weight, 1.0)
        return Mixture(_sent(partners(noise[:, 0]), device), weight)

    def _by_box(self, draws: Float[Tensor, " rows"]) -> Bool[Tensor, " rows"]:
        if self.config.mixup > 0 and self.config.has_cutmix:
            return draws < self.config.switch_prob
        return torch.full_like(draws, self.config.has_cutmix, dtype=torch.bool)

    def _inside(self, draws: Float[Tensor, "rows draws"], size: torch.Size, device: torch.device) -> Tensor:
        """The pixels of each image's box, shape (rows, 1, height, width)."""
        if self.config.cutmix_minmax is not None:
            return boxes_between(_sent(draws[:, 3:], device), self.config.cutmix_minmax, size)
        cut = 1.0 - beta(draws[:, 2], self.config.cutmix)
        return boxes(_sent(draws[:, 3:5], device), _sent(cut.sqrt(), device), size)


def _sent(values: Tensor, device: torch.device) -> Tensor:
    return to_device(values.numpy(), device, copied=False)


def _per_image(values: Shaped[Tensor, " rows"]) -> Shaped[Tensor, "rows 1 1 1"]:
    return values[:, None, None, None]
