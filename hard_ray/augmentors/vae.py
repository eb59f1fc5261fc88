"""HARD-VAE: a learned perturbation of an autoencoder's latent."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hard_ray.augmentors.base import AugmentationInput, AugmentedView, Holding, prior_loss, trained_group
from hard_ray.config.augmentor import VaeAugmentor
from hard_ray.errors import ModelError
from hard_ray.networks.autoencoders.base import Autoencoder
from hard_ray.networks.autoencoders.principal import COUNT


class LatentPerturbation(Holding):
    r"""Encodes an image, adds to its latent a perturbation that a network computes from latent and noise, and decodes.

    .. math:: \tilde x = \mathrm{clamp}\big(x + D(\mu + s \, \delta_\phi(\mu, \epsilon)) - D(\mu)\big)

    D is the decoder, mu the latent, s the strength. The difference of two decodings keeps the details that the decoder
    cannot draw; with `max_change` c it becomes s c tanh(difference / (s c)). With `residual: false` the first decoding
    itself is the result. delta is a tanh times `max_delta` standard deviations: of every latent value (`Cells`), or
    of the latent's coordinates along its principal directions (`Directions`). With `lambda_p`, the augmentor's loss has
    the divergence of the values before the tanh from N(0, 1), by the batch's mean and variance of each channel or
    direction.

    Source: HARD, arXiv:2305.14890 (HARD-VAE). The paper perturbs the posteriors between the blocks of a
    hierarchical VAE; one perturbation of one latent, its bounds and directions are ours.
    """

    max_delta: Tensor
    max_change: Tensor | None

    def __init__(self, config: VaeAugmentor, autoencoder: Autoencoder, *, img_size: int) -> None:
        """A frozen autoencoder is held outside the module's weights, so that checkpoints do not repeat it.

        Raises ModelError if the autoencoder has no principal directions, or the bounds have another number of values.
        """
        frozen = config.finetune_lr is None
        super().__init__(*([autoencoder.eval().requires_grad_(False)] if frozen else []))
        self.config = config
        shape = (autoencoder.latent_channels, autoencoder.cells(img_size), autoencoder.cells(img_size))
        if config.directions is None:
            self.net: Cells | Directions = Cells(config, autoencoder.latent_std, shape)
            bounds = _bounds("max_delta", config.max_delta, shape[0], "latent channels").view(1, -1, 1, 1)
        else:
            self.net = Directions(config, autoencoder, shape)
            bounds = _bounds("max_delta", config.max_delta, config.directions, "directions").view(1, -1)
        self.noise_dim = self.net.noise_dim
        self.register_buffer("max_delta", bounds, persistent=False)
        change = None
        if config.max_change is not None:
            largest = config.strength * _bounds(
                "max_change", config.max_change, autoencoder.in_chans, "colour channels"
            )
            change = largest.view(1, -1, 1, 1)
        self.register_buffer("max_change", change, persistent=False)
        self.trained = None if frozen else autoencoder.eval().requires_grad_(True)

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
        return self.net.perturbation(self._relative(self.net.raw(latent, noise)))

    def _relative(self, raw: Tensor) -> Tensor:
        """The network's values in standard deviations, within their bounds."""
        return self.max_delta * torch.tanh(raw)

    def forward(self, batch: AugmentationInput) -> Tensor:
        """The perturbed images; at strength 0 the input tensor itself."""
        if self.config.strength == 0:
            return batch.images
        return self._perturb(batch)[0]

    def augment(self, batch: AugmentationInput) -> AugmentedView:
        """The perturbed images, and the prior's term."""
        if self.config.strength == 0:
            return self.view(batch)
        images, raw = self._perturb(batch)
        values = raw.movedim(1, -1).flatten(0, -2)  # the cells of a channel share its mean and variance
        return AugmentedView(images, prior=prior_loss(self.config, values))

    def _perturb(self, batch: AugmentationInput) -> tuple[Tensor, Tensor]:
        """The images at this strength, and the network's values for their latents."""
        images, coder = batch.images, self.autoencoder
        size = (images.shape[-2], images.shape[-1])
        # 1. mu, and delta(mu, noise)
        latent = coder.encode(images)
        raw = self.net.raw(latent, batch.noise)
        if self.config.strength == 0:
            return images, raw
        delta = self.net.perturbation(self._relative(raw))
        # 2. D(mu + s delta)
        moved = coder.decode(latent + self.config.strength * delta, size)
        # 3. x + D(mu + s delta) - D(mu), the difference within its bounds
        if self.max_change is not None:
            difference = moved - coder.decode(latent, size)
            moved = images + self.max_change * torch.tanh(difference / self.max_change)
        elif self.config.residual:
            moved = images + moved - coder.decode(latent, size)
        return moved.clamp(0.0, 1.0), raw

    def samples(self, batch: AugmentationInput) -> dict[str, Tensor]:
        """Root mean square change of the latent, in standard deviations, and of the pixels."""
        perturbed, raw = self._perturb(batch)
        change = (perturbed - batch.images).flatten(1)
        return {
            "latent_change": self.config.strength * self._relative(raw).flatten(1).square().mean(dim=1).sqrt(),
            "pixel_change": change.square().mean(dim=1).sqrt(),
        }

    def bounds_of_samples(self) -> dict[str, tuple[float, float]]:
        """At most `max_delta` deviations of the latent, and `max_change` or the whole range of the pixels."""
        change = 1.0 if self.max_change is None else float(self.max_change.max())
        return {
            "latent_change": (0.0, self.config.strength * float(self.max_delta.max())),
            "pixel_change": (0.0, change),
        }


class Cells(nn.Sequential):
    """A convolutional network that computes one value for every value of the latent."""

    spread: Tensor

    def __init__(self, config: VaeAugmentor, spread: Float[Tensor, " latent"], shape: tuple[int, int, int]) -> None:
        """`shape` is the latent's; `spread` has the standard deviation of each of its channels."""
        (channels, *sides), hidden = shape, config.hidden_dim
        last = nn.Conv2d(hidden, channels, 3, padding=1)
        super().__init__(
            nn.Conv2d(channels + config.noise_channels, hidden, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.SiLU(),
            last,
        )
        self.drawn = (config.noise_channels, *sides)
        self.noise_dim = torch.Size(self.drawn).numel()
        self.register_buffer("spread", spread.view(1, -1, 1, 1), persistent=False)
        _initialise(self, last, (channels + config.noise_channels, *sides), config.init_spread)

    def raw(self, latent: Tensor, noise: Tensor) -> Float[Tensor, "batch latent side side"]:
        """The values before the tanh."""
        values: Tensor = self(torch.cat([latent / self.spread, noise.unflatten(1, self.drawn)], dim=1))
        return values

    def perturbation(self, relative: Tensor) -> Tensor:
        """The latent's perturbation of values in standard deviations."""
        return self.spread * relative


class Directions(nn.Sequential):
    """A network of three layers that computes one value for each of the latent's first principal directions.

    It sees the latent's own coordinates along them, in standard deviations, and noise.
    """

    mean: Tensor
    directions: Tensor

    def __init__(self, config: VaeAugmentor, autoencoder: Autoencoder, shape: tuple[int, int, int]) -> None:
        """`shape` is the latent's; raises ModelError if the autoencoder has too few directions, or of another shape."""
        count, hidden, known = config.directions or 0, config.hidden_dim, autoencoder.principal
        found = (0, *shape) if known is None else tuple(known.directions.shape)
        if known is None or found[0] < count or found[1:] != shape:
            raise ModelError(
                f"augmentor.directions={count}, for latents of shape {shape}: the autoencoder's folder has {found[0]} "
                f"directions of shape {found[1:]}; `hardray train-autoencoder` fits up to {COUNT} to the images and "
                "the size that it is trained on; train one, ask for fewer, or leave augmentor.directions unset"
            )
        last = nn.Linear(hidden, count)
        inputs = count * (1 + config.noise_channels)
        super().__init__(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), last)
        self.noise_dim = count * config.noise_channels
        self.register_buffer("mean", known.mean.clone(), persistent=False)
        self.register_buffer("directions", known.directions[:count].clone(), persistent=False)
        _initialise(self, last, (inputs,), config.init_spread)

    def raw(self, latent: Tensor, noise: Tensor) -> Float[Tensor, "batch directions"]:
        """The values before the tanh."""
        directions = self.directions.flatten(1)
        # d_k is sigma_k v_k, so a latent's coordinate in standard deviations is (mu - mean) d_k / |d_k|^2
        coordinates = (latent - self.mean).flatten(1) @ (directions / directions.square().sum(dim=1, keepdim=True)).T
        values: Tensor = self(torch.cat([coordinates, noise], dim=1))
        return values

    def perturbation(self, relative: Tensor) -> Tensor:
        """The latent's perturbation of values in standard deviations."""
        return torch.einsum("bk,kchw->bchw", relative, self.directions)


@torch.no_grad()
def _initialise(net: nn.Module, last: nn.Conv2d | nn.Linear, shape: tuple[int, ...], spread: float) -> None:
    """Scale the last layer so that standard normal input of a shape gives values of the deviation `spread`."""
    probe = torch.randn(64, *shape, generator=torch.Generator().manual_seed(0))
    last.weight.mul_(spread / net(probe).std())


def _bounds(name: str, value: float | tuple[float, ...], count: int, what: str) -> Float[Tensor, " values"]:
    """One bound for all, or one for each; raises ModelError if there is another number of them."""
    values = value if isinstance(value, tuple) else (value,)
    if isinstance(value, tuple) and len(value) != count:
        raise ModelError(
            f"augmentor.{name} has {len(value)} values for {count} {what}; give one number, or one for each of them"
        )
    return torch.tensor(values)
