"""AutoAugment, RandAugment and TrivialAugment, by torchvision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import assert_never

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from hard_ray.augmentors.base import AugmentationInput, Drawn
from hard_ray.config.augmentor import AutoAugmentor, PolicyAugmentor, RandAugmentor, TrivialAugmentor
from hard_ray.maths.noise import seed_of
from hard_ray.networks.precision import as_bytes


class Policy(Drawn):
    """Applies torchvision's policy to pixels as bytes: to the whole batch at once, or to each image by itself.

    Source: Cubuk et al. 2018, arXiv:1805.09501 (AutoAugment); Cubuk et al. 2019, arXiv:1909.13719 (RandAugment);
    Müller and Hutter 2021, arXiv:2103.10158 (TrivialAugment), in torchvision's form: operations such as shifts
    move by pixels, whatever the size of the image. No gradient flows through the policy.
    """

    noise_dim = 3
    """The first value decides whether the policy is applied; the others seed its draws."""

    def __init__(self, config: PolicyAugmentor) -> None:
        super().__init__(config)
        self.policy = _policy(config)

    def forward(self, batch: AugmentationInput) -> Tensor:
        """The images, changed where the policy is applied; at strength 0 the input tensor itself."""
        if self.config.strength == 0:
            return batch.images
        changed, pixels = batch.images.clone(), as_bytes(batch.images)
        is_one = self.config.per == "batch"
        noise = batch.noise[:1] if is_one else batch.noise
        chosen = torch.special.ndtr(noise[:, 0]) <= self.config.strength
        draws = noise[:, 1:].tolist()
        with drawing() as generator:
            for row in chosen.nonzero().flatten().tolist():
                generator.manual_seed(seed_of("policy", *map(str, draws[row])))
                rows = slice(None) if is_one else slice(row, row + 1)
                changed[rows] = self.policy(pixels[rows]).to(changed.dtype) / 255.0
        return changed


def _policy(config: PolicyAugmentor) -> nn.Module:
    policy: nn.Module
    match config:
        case AutoAugmentor():
            policy = v2.AutoAugment(v2.AutoAugmentPolicy(config.policy))
        case RandAugmentor():
            policy = v2.RandAugment(num_ops=config.num_ops, magnitude=config.magnitude)
        case TrivialAugmentor():
            policy = v2.TrivialAugmentWide()
        case _:
            assert_never(config)
    return policy


@contextmanager
def drawing() -> Iterator[torch.Generator]:
    """Lend the generator that torchvision draws from, and restore its state afterwards."""
    generator = torch.default_generator
    before = generator.get_state()
    try:
        yield generator
    finally:
        generator.set_state(before)
