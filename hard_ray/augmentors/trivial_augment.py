"""TrivialAugment: one random operation per image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torchvision.transforms import v2

from hard_ray.augmentors.base import AugmentationInput, Augmentor
from hard_ray.config.augmentor import TrivialAugmentor
from hard_ray.noise import seed_of


class TrivialAugment(Augmentor):
    """Applies torchvision's TrivialAugment Wide to each image by itself, on its pixels as bytes.

    Source: Müller and Hutter 2021, arXiv:2103.10158, in torchvision's form: 14 operations, 31 magnitudes, shifts of
    up to 32 pixels whatever the size of the image.
    """

    noise_dim = 3
    """The first value decides whether an image is changed, the others how."""

    def __init__(self, config: TrivialAugmentor) -> None:
        """Nothing here is trained."""
        super().__init__()
        self.config = config
        self.policy = v2.TrivialAugmentWide()

    def forward(self, batch: AugmentationInput) -> Tensor:
        """The changed images, and untouched those that were not drawn; at strength 0 the input tensor itself."""
        if self.config.strength == 0:
            return batch.images
        changed, pixels = batch.images.clone(), (batch.images * 255.0).round().to(torch.uint8)
        chosen = torch.special.ndtr(batch.noise[:, 0]) <= self.config.strength
        draws = batch.noise[:, 1:].tolist()
        with _drawing() as generator:
            for row in chosen.nonzero().flatten().tolist():
                generator.manual_seed(seed_of("trivial augment", *map(str, draws[row])))
                changed[row] = self.policy(pixels[row]).to(changed.dtype) / 255.0
        return changed


@contextmanager
def _drawing() -> Iterator[torch.Generator]:
    """The generator that torchvision draws from, given back as it was."""
    generator = torch.default_generator
    before = generator.get_state()
    try:
        yield generator
    finally:
        generator.set_state(before)
