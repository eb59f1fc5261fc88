"""HARD-VAE: a learned perturbation of an autoencoder's latent."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hard_ray.augmentors.base import AugmentationInput, Holding, trained_group
from hard_ray.config.augmentor import VaeAugmentor
from hard_ray.networks.autoencoders.base import Autoencoder


class LatentPerturbation(Holding):
    r"""Encodes an image, adds to its latent a perturbation that a network computes from latent and noise, and decodes.

    .. math:: \tilde x = \mathrm{clamp}\big(x + D(\mu + s \, \delta_\phi(\mu, \epsilon)) - D(\mu)\big)

    D is the decoder, mu the latent, s the strength. The difference of two decodings keeps the details that the decoder
    cannot draw; with `residual: false` the first decoding itself is the result. No cell of the latent moves by more
    than `max_delta` standard deviations of its channel.

    Source: HARD, arXiv:2305.14890 (HARD-VAE). The paper perturbs the posteriors between the blocks of a
    hierarchical VAE; one perturbation of one latent, with a convolutional network, is ours.
    """

    def __init__(self, config: VaeAugmentor, autoencoder: Autoencoder, *, img_size: int) -> None:
        """A frozen autoencoder is held outside the module's weights, so that checkpoints do not repeat it."""
        frozen = config.finetune_lr is None
        super().__init__(*([autoencoder.eval().requires_grad_(False)] if frozen else []))
        self.config = config
        self.side = math.ceil(img_size / autoencoder.factor)
        self.noise_dim = config.noise_channels * self.side**2
        channels, hidden = autoencoder.latent_channels, config.hidden_dim
        last = nn.Conv2d(hidden, channels, 3, padding=1)
        self.net = nn.Sequential(
            nn.Conv2d(channels + config.noise_channels, hidden, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.SiLU(),
            last,
        )
        self._initialise(last)
        self.trained = None if frozen else autoencoder.eval().requires_grad_(True)

    @torch.no_grad()
    def _initialise(self, last: nn.Conv2d) -> None:
        """Scale the last layer so that standard normal input gives values of deviation `init_spread`."""
        first = self.net[0]
        assert isinstance(first, nn.Conv2d)
        probe = torch.randn(64, first.in_channels, self.side, self.side, generator=torch.Generator().manual_seed(0))
        last.weight.mul_(self.config.init_spread / self.net(probe).std())

    @property
    def autoencoder(self) -> Autoencoder:
        """The pretrained autoencoder."""
        coder = self.held[0] if self.trained is None else self.trained
        assert isinstance(coder, Autoencoder)
        return coder

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The perturbation network, and the autoencoder if it is fine-tuned."""
        own = trained_group(self.config, self.net.parameters())
        if not own or self.config.finetune_lr is None:
            return own
        tuned = {"params": list(self.autoencoder.parameters()), "lr": self.config.finetune_lr, "weight_decay": 0.0}
        return [*own, tuned]

    def delta(
        self, latent: Float[Tensor, "batch latent side side"], noise: Float[Tensor, "batch noise"]
    ) -> Float[Tensor, "batch latent side side"]:
        """The perturbation delta of the latent at strength 1."""
        spread = self.autoencoder.latent_std.view(1, -1, 1, 1)
        drawn = noise.unflatten(1, (self.config.noise_channels, self.side, self.side))
        raw = self.net(torch.cat([latent / spread, drawn], dim=1))
        moved: Tensor = self.config.max_delta * spread * torch.tanh(raw)
        return moved

    def forward(self, batch: AugmentationInput) -> Tensor:
        """The perturbed images; at strength 0 the input tensor itself."""
        if self.config.strength == 0:
            return batch.images
        return self._perturb(batch)[0]

    def _perturb(self, batch: AugmentationInput) -> tuple[Tensor, Tensor]:
        """The images at this strength, and the perturbation of their latent at strength 1."""
        images, coder = batch.images, self.autoencoder
        size = (images.shape[-2], images.shape[-1])
        # 1. mu, and delta(mu, noise)
        latent = coder.encode(images)
        delta = self.delta(latent, batch.noise)
        if self.config.strength == 0:
            return images, delta
        # 2. D(mu + s delta)
        moved = coder.decode(latent + self.config.strength * delta, size)
        # 3. x + D(mu + s delta) - D(mu)
        if self.config.residual:
            moved = images + moved - coder.decode(latent, size)
        return moved.clamp(0.0, 1.0), delta

    def samples(self, batch: AugmentationInput) -> dict[str, Tensor]:
        """Root mean square change of the latent, in standard deviations of its channels, and of the pixels."""
        perturbed, delta = self._perturb(batch)
        relative = delta / self.autoencoder.latent_std.view(1, -1, 1, 1)
        change = (perturbed - batch.images).flatten(1)
        return {
            "latent_change": self.config.strength * relative.flatten(1).square().mean(dim=1).sqrt(),
            "pixel_change": change.square().mean(dim=1).sqrt(),
        }

    def bounds_of_samples(self) -> dict[str, tuple[float, float]]:
        """At most `max_delta` deviations of the latent, and the whole range of the pixels."""
        return {"latent_change": (0.0, self.config.strength * self.config.max_delta), "pixel_change": (0.0, 1.0)}
