"""Ascent on a loss within a ball around each image: pure functions of images and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, assert_never

import torch
from jaxtyping import Float
from torch import Tensor

from hard_ray.config.augmentor import AttackConfig
from hard_ray.maths.noise import seed_of

Norm = Literal["l2", "linf"]
START_DRAWS = 3
"""Normal noise values per image for a random start: whether, how far, and a third; all three seed the direction."""
_TINY = 1e-12


def attack(
    centre: Float[Tensor, "batch channels height width"],
    noise: Float[Tensor, "batch 3"],
    gradient: Callable[[Tensor], Tensor],
    config: AttackConfig,
    *,
    strength: float = 1.0,
) -> Float[Tensor, "batch channels height width"]:
    """Attack images by steps of ascent, from the images themselves or from random points near them.

    Source: DAD, arXiv:2311.01441, with one step along the normalised gradient; its settings are the defaults. The
    paper's text has a random start of norm eps; here it lies within the ball, at a radius that is drawn uniformly.

    Args:
        centre: images in [0, 1]; no result is further than strength x eps from them.
        noise: decides for each image whether and where it starts at random.
        gradient: computes each image's gradient of the loss.
        config: norm, radius, steps.
        strength: multiplies radius and step.
    """
    eps, step = strength * config.eps, strength * config.step_size
    # 1. the start: x = x_rec, or with probability `random_start` a random point of the ball around x_rec
    images = project(centre + _start(centre, noise, config, eps), centre, norm=config.norm, eps=eps)
    for _ in range(config.steps):
        # 2. x <- x + step g / ||g||; 3. back into the ball around x_rec and [0, 1]
        ascended = images + step * direction(gradient(images), norm=config.norm)
        images = project(ascended, centre, norm=config.norm, eps=eps)
    return images


def direction(gradient: Float[Tensor, "batch ..."], *, norm: Norm) -> Float[Tensor, "batch ..."]:
    """The step of length 1 along which a linear loss rises most; zero if the gradient is zero."""
    match norm:
        case "l2":
            # divided by its largest value first: a confident teacher's gradient is below 1e-20, and squares underflow
            largest = gradient.flatten(1).abs().amax(dim=1).view(-1, *([1] * (gradient.ndim - 1)))
            scaled = gradient / torch.where(largest > 0, largest, 1.0)
            return scaled / _length(scaled).clamp_min(_TINY)
        case "linf":
            return gradient.sign()
        case _:
            assert_never(norm)


def project(
    images: Float[Tensor, "batch ..."], centre: Float[Tensor, "batch ..."], *, norm: Norm, eps: float
) -> Float[Tensor, "batch ..."]:
    """Project onto the ball around `centre`, then onto [0, 1]; as `centre` is in [0, 1], that stays in the ball."""
    offset = images - centre
    match norm:
        case "l2":
            offset = offset * (eps / _length(offset).clamp_min(_TINY)).clamp(max=1.0)
        case "linf":
            offset = offset.clamp(-eps, eps)
        case _:
            assert_never(norm)
    return (centre + offset).clamp(0.0, 1.0)


def distance(
    images: Float[Tensor, "batch ..."], centre: Float[Tensor, "batch ..."], *, norm: Norm
) -> Float[Tensor, " batch"]:
    """The distance of each image from the centre of its ball."""
    offset = (images - centre).flatten(1)
    found: Tensor = torch.linalg.vector_norm(offset, ord=2 if norm == "l2" else math.inf, dim=1)
    return found


def _start(centre: Tensor, noise: Tensor, config: AttackConfig, eps: float) -> Tensor:
    """Offsets of random starts; zero for images that start at the centre."""
    draws = torch.special.ndtr(noise)
    chosen = draws[:, 0] <= config.random_start
    offset = torch.zeros_like(centre)
    for row in chosen.nonzero().flatten().tolist():
        generator = torch.Generator().manual_seed(seed_of("attack start", *map(str, noise[row].tolist())))
        if config.norm == "linf":
            point = eps * (2.0 * torch.rand(centre.shape[1:], generator=generator) - 1.0)
        else:
            point = torch.randn(centre.shape[1:], generator=generator)
            point = point * (eps * draws[row, 1].item() / point.norm())
        offset[row] = point.to(centre)
    return offset


def _length(tensor: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(tensor.flatten(1), dim=1)
    return length.view(-1, *([1] * (tensor.ndim - 1)))
