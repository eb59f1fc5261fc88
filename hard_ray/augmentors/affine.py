"""HARD-Affine: a learned distribution of spatial transforms."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hard_ray.augmentors.base import AugmentationInput, AugmentedView, Augmentor, prior_loss, trained_group
from hard_ray.augmentors.replay import REPLAY_DRAWS, Replaying
from hard_ray.config.augmentor import AffineAugmentor, RandomAffineAugmentor
from hard_ray.maths.resampling import sample

PARAMETERS = ("shift_x", "shift_y", "rotation", "log_scale", "shear")


class Spatial(Augmentor):
    """Draws a shift, rotation, scale and shear for each image within bounds, and applies it differentiably."""

    bounds: Tensor

    def __init__(self, config: AffineAugmentor | RandomAffineAugmentor) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("bounds", bounds_of(config), persistent=False)

    def sample(self, noise: Float[Tensor, "batch noise"]) -> Float[Tensor, "batch 5"]:
        """Transform parameters in the order of `PARAMETERS`: shifts in half sides, angles in radians."""
        raise NotImplementedError

    def forward(self, batch: AugmentationInput) -> Tensor:
        """The transformed images; at strength 0 the input tensor itself."""
        if self.config.strength == 0:
            return batch.images
        return self._transform(batch.images, self.sample(batch.noise))

    def _transform(self, images: Tensor, parameters: Tensor) -> Tensor:
        return transform(images, parameters, padding=self.config.padding)

    def _within_bounds(self, relative: Tensor) -> Tensor:
        """Scale values between -1 and 1 to parameters within the bounds."""
        return relative * self.bounds * self.config.strength

    def samples(self, batch: AugmentationInput) -> dict[str, Tensor]:
        """Shifts in half sides, angles in radians, the logarithm of the magnification, the shear's slope."""
        return dict(zip(PARAMETERS, self.sample(batch.noise).unbind(dim=1), strict=True))

    def bounds_of_samples(self) -> dict[str, tuple[float, float]]:
        """The bounds at this strength."""
        reach = (self.bounds * self.config.strength).tolist()
        return {name: (-bound, bound) for name, bound in zip(PARAMETERS, reach, strict=True)}


class Affine(Spatial, Replaying):
    r"""Samples a shift, rotation, scale and shear for each image and applies it differentiably.

    .. math:: \theta_i = s \, b \odot \tanh(f_\phi(\epsilon_i)), \qquad \tilde x_i = \mathrm{warp}(x_i; \theta_i)

    The network f maps an image's noise to five raw values. Tanh, the bounds b and the strength s make parameters of
    them, so that every sample lies within the bounds, and the gradient reaches f through the sampled grid
    (reparameterisation). Pixels from outside the image are zero unless `padding` says otherwise.

    A share `replay` of the student's images is transformed by earlier states of f. With `lambda_p`, the augmentor's
    loss has the divergence of the raw values from N(0, 1), by the batch's mean and variance of each parameter.

    Source: HARD, arXiv:2305.14890, section 4 (HARD-Affine), after Orbit (Nix et al. 2022). The papers learn the
    parameters of a Gaussian; a network of the noise is ours, because a Gaussian that is narrow at the start
    cannot leave the identity: near it, the blur of interpolation moves the teacher more than it raises the
    disagreement. Replay is ours.
    """

    config: AffineAugmentor

    def __init__(self, config: AffineAugmentor) -> None:
        """Build f; its last layer is scaled so that raw values have the standard deviation `init_spread`."""
        super().__init__(config)
        self.noise_dim = config.noise_dim + (REPLAY_DRAWS if config.replay > 0 else 0)
        first = nn.Linear(config.noise_dim, config.hidden_dim)
        last = nn.Linear(config.hidden_dim, len(PARAMETERS))
        self.net = nn.Sequential(first, nn.ReLU(), last)
        self._initialise(first, last)
        self._keep_states()

    def _initialise(self, first: nn.Linear, last: nn.Linear) -> None:
        # 1. first layer: of standard normal noise, each hidden unit's input is standard normal
        nn.init.normal_(first.weight, std=self.config.noise_dim**-0.5)
        nn.init.zeros_(first.bias)
        # 2. the ReLU of a standard normal has the mean 1/sqrt(2 pi) and the mean square 1/2
        mean = (2.0 * math.pi) ** -0.5
        deviation = (0.5 - mean**2) ** 0.5
        # 3. last layer: the sum over hidden units has the deviation `init_spread`, and the bias removes its mean, so
        # that the distribution starts wide and centred on the identity; a narrow one would not leave it
        nn.init.normal_(last.weight, std=self.config.init_spread / (deviation * self.config.hidden_dim**0.5))
        with torch.no_grad():
            last.bias.copy_(-mean * last.weight.sum(dim=1))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The network, unless strength 0 leaves it without effect."""
        return trained_group(self.config, self.net.parameters())

    def sample(self, noise: Float[Tensor, "batch noise"]) -> Float[Tensor, "batch 5"]:
        """Transform parameters in the order of `PARAMETERS`: shifts in half sides, angles in radians."""
        return self._within_bounds(torch.tanh(self._raw(noise)))

    def _raw(self, noise: Float[Tensor, "batch noise"]) -> Float[Tensor, "batch 5"]:
        raw: Tensor = self.net(noise[:, : self.config.noise_dim])
        return raw

    def forward(self, batch: AugmentationInput) -> Tensor:
        """The images that the student learns from, some transformed by an earlier state; at strength 0 the input."""
        if self.config.strength == 0:
            return batch.images
        return self._transform(batch.images, self._replayed(batch.noise))

    def augment(self, batch: AugmentationInput) -> AugmentedView:
        """The images as the present network transforms them, and the prior's term."""
        if self.config.strength == 0:
            return AugmentedView(batch.images)
        raw = self._raw(batch.noise)
        images = self._transform(batch.images, self._within_bounds(torch.tanh(raw)))
        return AugmentedView(images, prior=prior_loss(self.config, raw))

    def _replayed(self, noise: Tensor) -> Tensor:
        """Like `sample`, but a share of the rows uses an earlier state; two more noise values decide which."""
        # 1. theta by the present state, for every row
        present = self.sample(noise)
        known = self._known()
        if known == 0:
            return present
        # 2. two uniform draws per row: whether it is replayed, and by which of the known states
        replayed, chosen = self._replays(noise[:, self.config.noise_dim :], known)
        # 3. theta by every known state, of which each row takes its own
        earlier = self._within_bounds(torch.tanh(self._of_past(noise[:, : self.config.noise_dim], known)))
        earlier = earlier[chosen, torch.arange(len(noise), device=noise.device)]
        return torch.where(replayed[:, None], earlier, present)

    def _of_past(self, noise: Float[Tensor, "batch noise"], known: int) -> Float[Tensor, "past batch 5"]:
        """The raw values f(noise) of every row by each earlier state."""
        shapes = [parameter.shape for parameter in self.net.parameters()]
        parts = self.past[:known].split([shape.numel() for shape in shapes], dim=1)
        first, first_bias, last, last_bias = (
            part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)
        )
        hidden = torch.relu(noise @ first.transpose(1, 2) + first_bias[:, None])
        raw: Tensor = hidden @ last.transpose(1, 2) + last_bias[:, None]
        return raw


def bounds_of(config: AffineAugmentor | RandomAffineAugmentor) -> Float[Tensor, " 5"]:
    """The largest parameters, in the order and units of `PARAMETERS`, before the strength."""
    return torch.tensor(
        [
            2.0 * config.max_shift,  # grid coordinates run from -1 to 1: a side is 2 long
            2.0 * config.max_shift,
            math.radians(config.max_rotation),
            math.log(config.max_scale),
            math.tan(math.radians(config.max_shear)),
        ]
    )


def transform(
    images: Float[Tensor, "batch channels height width"], parameters: Float[Tensor, "batch 5"], *, padding: str
) -> Float[Tensor, "batch channels height width"]:
    """Apply its own transform to each image, with bilinear interpolation; differentiable in the parameters."""
    grid = F.affine_grid(matrices(parameters), list(images.shape), align_corners=False)
    return sample(images, grid, padding=padding)


def matrices(parameters: Float[Tensor, "batch 5"]) -> Float[Tensor, "batch 2 3"]:
    """Output-to-input matrices of `torch.nn.functional.affine_grid`.

    The content is magnified by exp(log_scale), sheared along x, turned by `rotation`, and moved by
    (+shift_x, +shift_y), that is to the right and down.
    """
    shift_x, shift_y, rotation, log_scale, shear = parameters.unbind(dim=1)
    cos, sin, shrink = rotation.cos(), rotation.sin(), (-log_scale).exp()
    # the content's map is p -> A p + t with A = rotate shear magnify; grid sampling wants its inverse,
    # p -> A^-1 p - A^-1 t, with A^-1 = [[a, b], [c, d]]
    a, b = shrink * (cos + shear * sin), shrink * (sin - shear * cos)
    c, d = -shrink * sin, shrink * cos
    tx, ty = -(a * shift_x + b * shift_y), -(c * shift_x + d * shift_y)
    return torch.stack([torch.stack([a, b, tx], dim=1), torch.stack([c, d, ty], dim=1)], dim=1)
