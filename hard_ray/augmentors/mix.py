"""HARD-Mix: a learned mask blends each image with another of the batch."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hard_ray.augmentors.base import AugmentationInput, AugmentedView, Augmentor, prior_loss, trained_group
from hard_ray.augmentors.partners import partners, shares
from hard_ray.config.augmentor import MixAugmentor
from hard_ray.maths.resampling import resize


class Mix(Augmentor):
    r"""Mixes an image with its partner by a mask that depends on both and on noise: x~ = m x_i + (1 - m) x_j.

    The mask m is coarse (`mask_size` cells along each side) and enlarged bilinearly. Strength s moves it towards the
    image itself: m becomes 1 - s (1 - m). Drift is measured against the mixture of the teacher's answers to both
    images, weighted by the mask's mean. With `lambda_p`, the augmentor's loss has the divergence of the mask's values
    before the sigmoid from N(0, `init_spread`^2), by the batch's mean and variance in each cell.

    Source: HARD, arXiv:2305.14890 (HARD-Mix). The network is ours: two strided convolutions over both images,
    pooled to the mask's cells, plus a linear map of noise that dominates at the start, so that masks differ.
    """

    def __init__(self, config: MixAugmentor, *, in_chans: int) -> None:
        super().__init__()
        self.config = config
        self.noise_dim = 1 + config.noise_dim
        cells = config.mask_size**2
        self.look = nn.Sequential(
            nn.Conv2d(2 * in_chans, config.hidden_dim, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(config.hidden_dim, config.hidden_dim, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(config.mask_size),
            nn.Conv2d(config.hidden_dim, 1, 1),
        )
        self.draw = nn.Linear(config.noise_dim, cells)
        nn.init.normal_(self.draw.weight, std=config.init_spread * config.noise_dim**-0.5)
        nn.init.zeros_(self.draw.bias)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The networks, unless strength 0 leaves them without effect."""
        return trained_group(self.config, self.parameters())

    def masks(self, batch: AugmentationInput) -> Float[Tensor, "batch 1 height width"]:
        """The mask m: the weight of the image itself at every pixel."""
        return self._masks(self._cells(batch, batch.images[partners(batch.noise[:, 0])]), batch.images)

    def _cells(self, batch: AugmentationInput, others: Tensor) -> Float[Tensor, "batch 1 cells cells"]:
        """One logit per cell: a look at (x_i, x_j) plus a linear map of noise."""
        look, drawn = self.look(torch.cat([batch.images, others], dim=1)), self.draw(batch.noise[:, 1:])
        cells: Tensor = look + drawn.unflatten(1, (1, self.config.mask_size, -1))
        return cells

    def _masks(self, cells: Tensor, images: Tensor) -> Tensor:
        """The mask m, enlarged to the image and moved towards 1 by the strength."""
        mask = resize(cells.sigmoid(), (images.shape[-2], images.shape[-1]), mode="bilinear")
        return 1.0 - self.config.strength * (1.0 - mask)

    def forward(self, batch: AugmentationInput) -> Tensor:
        """The mixed images; at strength 0 the input tensor itself."""
        return self.view(batch).images

    def view(self, batch: AugmentationInput) -> AugmentedView:
        """The mixed images, the shares of both images in each, which the gradient reaches, and the prior's term."""
        if self.config.strength == 0:
            return AugmentedView(batch.images)
        partner = partners(batch.noise[:, 0])
        others = batch.images[partner]
        cells = self._cells(batch, others)
        mask = self._masks(cells, batch.images)
        mixed = mask * batch.images + (1.0 - mask) * others
        prior = prior_loss(self.config, cells.flatten(1) / self.config.init_spread)
        return AugmentedView(mixed, shares(mask.mean(dim=(1, 2, 3)), partner), prior)

    def samples(self, batch: AugmentationInput) -> dict[str, Tensor]:
        """The mask's mean, which is the image's own share, and its standard deviation over the image."""
        mask = self.masks(batch)
        return {"own_share": mask.mean(dim=(1, 2, 3)), "mask_contrast": mask.flatten(1).std(dim=1, correction=0)}

    def bounds_of_samples(self) -> dict[str, tuple[float, float]]:
        """At strength s, at most the share s of an image is its partner's."""
        strength = self.config.strength
        return {"own_share": (1.0 - strength, 1.0), "mask_contrast": (0.0, strength / 2)}
