"""One small augmentor of each kind, and images for it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hard_ray.augmentors.affine import Affine
from hard_ray.augmentors.base import AugmentationInput, Augmentor
from hard_ray.augmentors.learned_policy import LearnedPolicy
from hard_ray.augmentors.mix import Mix
from hard_ray.augmentors.sequence import Chain
from hard_ray.augmentors.vae import LatentPerturbation
from hard_ray.config.augmentor import AffineAugmentor, LearnedPolicyAugmentor, MixAugmentor, VaeAugmentor
from hard_ray.networks.autoencoders.base import Autoencoder

KINDS = ("affine", "policy", "mix", "vae", "sequence")


class Halving(Autoencoder):
    """An autoencoder without training: means of 2x2 pixels, and back by repetition."""

    factor = 2

    def __init__(self, channels: int = 1) -> None:
        nn.Module.__init__(self)
        self.in_chans = self.latent_channels = channels
        self.gain = nn.Parameter(torch.ones(()))
        self.register_buffer("latent_std", torch.full((channels,), 0.25))

    def encode(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, 2)

    def decode(self, latent: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(self.gain * latent, size=size, mode="nearest")


def make(kind: str, *, strength: float = 1.0, img_size: int = 20, channels: int = 1) -> Augmentor:
    torch.manual_seed(0)
    if kind == "affine":
        return Affine(AffineAugmentor(noise_dim=16, hidden_dim=32, strength=strength))
    if kind == "mix":
        return Mix(MixAugmentor(noise_dim=8, hidden_dim=8, strength=strength), in_chans=channels)
    if kind == "vae":
        config = VaeAugmentor(autoencoder={"model": "none"}, noise_channels=2, hidden_dim=8, strength=strength)
        return LatentPerturbation(config, Halving(channels), img_size=img_size)
    if kind == "policy":
        policy = LearnedPolicyAugmentor(noise_dim=8, hidden_dim=8, strength=strength, flip=False)
        learned = LearnedPolicy(policy, in_chans=channels, img_size=img_size)
        nn.init.normal_(learned.net.last.weight, std=0.1)  # 0 at the start, where the layers before have no gradient
        return learned
    assert kind == "sequence", f"no learned augmentor of kind {kind} is made here: add a branch"
    parts = ("mix", "affine", "mix", "vae")
    return Chain([(part, make(part, strength=strength, img_size=img_size, channels=channels)) for part in parts])


def images_for(
    augmentor: Augmentor, rows: int = 8, size: int = 20, dtype: torch.dtype = torch.float32, channels: int = 1
) -> AugmentationInput:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(rows, channels, size, size, generator=generator, dtype=dtype)
    return AugmentationInput(images, torch.randn(rows, augmentor.noise_dim, generator=generator, dtype=dtype))
