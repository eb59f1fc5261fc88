"""Operations on images that are differentiable in their magnitudes, each for a batch with a magnitude for each image.

A magnitude of 0 leaves an image as it is, up to rounding; a flip has none. Kornia's operations are used where they are
differentiable in the magnitude, take one for each image, and wait for no kernel; docs/decisions/0066 has the reasons.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from kornia import enhance, filters
from torch import Tensor, nn

from hard_ray.config.augmentor import PolicyOperations
from hard_ray.maths.noise import seed_of

PIXELS = 32
"""The side of the image that `max_pixelation` refers to."""
FIELDS = 16
"""Random fields of each kind; an image takes one of them, moved round by a random distance."""
PATTERN_DRAWS = 14
"""Noise values for the patterns of an image: field, row and column of four fields; row and column of the square."""

Images = Float[Tensor, "batch channels height width"]
Magnitudes = Float[Tensor, " batch"]


@dataclass(frozen=True, slots=True)
class Patterns:
    """What an operation needs at random beside its magnitude, for each image."""

    normal: tuple[Images, Images, Images]
    """Standard normal values for each kind of noise."""
    clouds: Float[Tensor, "batch 1 height width"]
    """Smooth values between 0 and 1."""
    centre: Float[Tensor, "batch 2"]
    """Row and column of the square, between 0 and 1."""

    def rows(self, chosen: Tensor) -> Patterns:
        """Those of some images."""
        gaussian, shot, sparse = self.normal
        return Patterns((gaussian[chosen], shot[chosen], sparse[chosen]), self.clouds[chosen], self.centre[chosen])


class Fields(nn.Module):
    """Random fields that are the same in every run; noise decides which part of them an image sees.

    To draw a value for each pixel on the host costs more than a student update at 224 pixels.
    """

    normal: Tensor
    clouds: Tensor

    def __init__(self, in_chans: int, img_size: int) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(seed_of("policy fields"))
        normal = torch.randn(FIELDS, in_chans, img_size, img_size, generator=draws)
        self.register_buffer("normal", normal, persistent=False)
        clouds = _clouds(torch.randn(FIELDS, 1, img_size, img_size, generator=draws))
        self.register_buffer("clouds", clouds, persistent=False)

    def patterns(self, noise: Float[Tensor, "batch 14"]) -> Patterns:
        """The patterns of each image, from `PATTERN_DRAWS` standard normal values."""
        uniform: Tensor = torch.special.ndtr(noise)
        places = uniform[:, :12].unflatten(1, (4, 3))
        gaussian, shot, sparse = (_seen(self.normal, place) for place in places[:, :3].unbind(dim=1))
        return Patterns((gaussian, shot, sparse), _seen(self.clouds, places[:, 3]), uniform[:, 12:])


def _seen(fields: Tensor, place: Float[Tensor, "batch 3"]) -> Images:
    """One field for each image, moved round by rows and columns."""
    size = fields.shape[-1]
    field = (place[:, 0] * len(fields)).long().clamp(max=len(fields) - 1)
    down, right = ((place[:, column] * size).long().clamp(max=size - 1) for column in (1, 2))
    line = torch.arange(size, device=fields.device)
    rows, columns = (down[:, None] + line) % size, (right[:, None] + line) % size
    return fields[field[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _clouds(noise: Images) -> Images:
    """Noise whose amplitude falls with the frequency to the power 1.5, between 0 and 1, without a seam."""
    rows, columns = (torch.fft.fftfreq(side) for side in noise.shape[-2:])
    frequency = (rows[:, None] ** 2 + columns**2).sqrt().clamp(min=1.0 / noise.shape[-1])
    smooth = torch.fft.ifft2(torch.fft.fft2(noise) / frequency**1.5).real
    low, high = smooth.amin(dim=(1, 2, 3), keepdim=True), smooth.amax(dim=(1, 2, 3), keepdim=True)
    clouds: Tensor = (smooth - low) / (high - low)
    return clouds


Apply = Callable[[Images, Magnitudes, Patterns], Images]


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation with the bounds of its magnitude at strength 1."""

    name: str
    low: float
    high: float
    apply: Apply | None
    """None: a parameter of the common resampling."""


def operations_of(config: PolicyOperations, *, in_chans: int, img_size: int) -> tuple[Operation, ...]:
    """The operations of a configuration, in the order of their application; those with no room are left out."""

    def bound(value: float, most: float = math.inf) -> float:
        return min(value * config.widen, most)

    def log(factor: float) -> float:
        return bound(math.log(factor))

    both: list[tuple[str, float, Apply | None]] = [
        ("shift_x", 2.0 * bound(config.max_shift, 1.0), None),
        ("shift_y", 2.0 * bound(config.max_shift, 1.0), None),
        ("rotation", bound(math.radians(config.max_rotation), math.pi), None),
        ("log_scale", log(config.max_scale), None),
        ("shear", math.tan(bound(math.radians(config.max_shear), math.radians(75.0))), None),
        ("brightness", bound(config.max_brightness, 1.0), _brightness),
        ("log_contrast", log(config.max_contrast), _contrast),
    ]
    if in_chans == 3:
        both += [
            ("log_saturation", log(config.max_saturation), _saturation),
            ("hue", bound(math.radians(config.max_hue), math.pi), _hue),
        ]
    both += [("log_gamma", log(config.max_gamma), _gamma)]
    blur = bound(config.max_blur, 0.25) * img_size
    squares = log(config.max_pixelation) + (math.log(img_size / PIXELS) if config.max_pixelation > 1.0 else 0.0)
    squares = min(squares, math.log(img_size))
    one_side: list[tuple[str, float, Apply]] = [
        ("flip", float(config.flip), _flip),
        ("haze", bound(config.max_haze, 1.0), _haze),
        ("sharpness", bound(config.max_sharpness), _sharpness),
        ("blur", blur, partial(_blur, most=blur)),
        ("log_pixelation", squares, partial(_pixelation, most=squares)),
        ("gaussian_noise", bound(config.max_gaussian_noise, 1.0), _gaussian_noise),
        ("shot_noise", bound(config.max_shot_noise, 1.0), _shot_noise),
        ("sparse_noise", bound(config.max_sparse_noise, 1.0), _sparse_noise),
        ("erasing", bound(config.max_erasing, 2.0), _erasing),
    ]
    found = [Operation(name, -most, most, apply) for name, most, apply in both]
    found += [Operation(name, 0.0, most, apply) for name, most, apply in one_side]
    return tuple(operation for operation in found if operation.high > 0.0)


def _column(magnitude: Magnitudes) -> Float[Tensor, "batch 1 1 1"]:
    return magnitude[:, None, None, None]


def _brightness(images: Images, magnitude: Magnitudes, patterns: Patterns) -> Images:
    return enhance.adjust_brightness(images, magnitude)


def _contrast(images: Images, magnitude: Magnitudes, patterns: Patterns) -> Images:
    return enhance.adjust_contrast_with_mean_subtraction(images, magnitude.exp())


def _saturation(images: Images, magnitude: Magnitudes, patterns: Patterns) -> Images:
    return enhance.adjust_saturation_with_gray_subtraction(images, magnitude.exp())


def _hue(images: Images, magnitude: Magnitudes, patterns: Patterns) -> Images:
    return enhance.adjust_hue(images, magnitude)


def _gamma(images: Images, magnitude: Magnitudes, patterns: Patterns) -> Images:
    """x^g as x x^(g-1), which leaves black as it is; the slope of a power is infinite there."""
    return images * ((_column(magnitude.exp()) - 1.0) * images.clamp(min=1e-3).log()).exp()


def _flip(images: Images, magnitude: Magnitudes, patterns: Patterns) -> Images:
    """Mirrored left to right, at any magnitude."""
    return images.flip(-1)


def _haze(images: Images, magnitude: Magnitudes, patterns: Patterns) -> Images:
    light = _column(magnitude) * patterns.clouds
    return images + light * (1.0 - images)


def _sharpness(images: Images, magnitude: Magnitudes, patterns: Patterns) -> Images:
    return enhance.sharpness(images, 1.0 + magnitude)


def _blur(images: Images, magnitude: Magnitudes, patterns: Patterns, *, most: float) -> Images:
    """Kernels reach out to 2.5 standard deviations; kornia's `gaussian_blur2d` would read `magnitude` on the host."""
    radius = min(math.ceil(2.5 * most), images.shape[-1] - 1)
    kernel = filters.get_gaussian_kernel1d(2 * radius + 1, magnitude[:, None])
    larger = _mirrored(_mirrored(images, radius, axis=-1), radius, axis=-2)
    return filters.filter2d_separable(larger, kernel, kernel, padding="valid")


def _mirrored(images: Images, radius: int, *, axis: int) -> Images:
    """Continue both ends by their mirror images; torch's padding by reflection has no exact gradient on a GPU."""
    size = images.shape[axis]
    first, last = images.narrow(axis, 0, radius), images.narrow(axis, size - radius, radius)
    return torch.cat([first.flip(axis), images, last.flip(axis)], dim=axis)


def _pixelation(images: Images, magnitude: Magnitudes, patterns: Patterns, *, most: float) -> Images:
    """Squares of 1, 2, 4, ... pixels, and means of the two nearest sizes between them."""
    level = magnitude / math.log(2.0)
    total = torch.zeros_like(images)
    for number in range(math.ceil(most / math.log(2.0)) + 1):
        weight = (1.0 - (level - number).abs()).clamp(min=0.0)
        total = total + _column(weight) * _squares(images, 2**number)
    return total


def _squares(images: Images, side: int) -> Images:
    height, width = images.shape[-2:]
    small = F.avg_pool2d(images, side, ceil_mode=True, count_include_pad=False)
    return small.repeat_interleave(side, dim=-2).repeat_interleave(side, dim=-1)[..., :height, :width]


def _gaussian_noise(images: Images, magnitude: Magnitudes, patterns: Patterns) -> Images:
    return (images + _column(magnitude) * patterns.normal[0]).clamp(0.0, 1.0)


def _shot_noise(images: Images, magnitude: Magnitudes, patterns: Patterns) -> Images:
    """Counts of photons, as normal noise; the slope of a root is infinite at 0."""
    spread = images.clamp(min=1e-3).sqrt()
    return (images + _column(magnitude) * spread * patterns.normal[1]).clamp(0.0, 1.0)


def _sparse_noise(images: Images, magnitude: Magnitudes, patterns: Patterns) -> Images:
    """Single values become 0 or 1; the gradient of the share is that of a soft threshold."""
    uniform: Tensor = torch.special.ndtr(patterns.normal[2])
    half = 0.5 * _column(magnitude)
    black, white = (straight_through(half - distance, 0.02) for distance in (uniform, 1.0 - uniform))
    return images * (1.0 - black) * (1.0 - white) + white


def straight_through(logits: Tensor, temperature: float) -> Tensor:
    """1 where the logits are positive and 0 elsewhere, with the gradient of their sigmoid at a temperature."""
    soft = (logits / temperature).sigmoid()
    return (logits > 0).to(soft.dtype) + (soft - soft.detach())


def _erasing(images: Images, magnitude: Magnitudes, patterns: Patterns) -> Images:
    """A grey square, whose edge covers a part of its pixels."""
    size = images.shape[-1]
    places = torch.arange(size, device=images.device, dtype=images.dtype) + 0.5
    distance, side = (size * patterns.centre[:, :, None] - places).abs(), size * magnitude[:, None, None]
    # the common length of a pixel and the square's side, on each axis
    rows, columns = torch.minimum((0.5 * (side + 1.0) - distance).clamp(0.0, 1.0), side).unbind(dim=1)
    square = (rows[:, :, None] * columns[:, None, :])[:, None]
    return images + square * (0.5 - images)
