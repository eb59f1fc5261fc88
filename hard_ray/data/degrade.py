"""Damage of random kinds and strengths: noise, blur, less contrast, fog, pixelation, affine maps.

The operations are simple relatives of common corruptions (Hendrycks and Dietterich 2019, arXiv:1903.12261, section 3).
A severity of 1 is about their severity 3, in pixels for every image size, as `evaluation.corruptions` measures; noise
is rounded, fog is made of a few octaves, and a motion blur weighs all its positions alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from hard_ray.config.view import DegradeConfig, DegradeKind

Operation = Callable[[Image.Image, float, Generator], Image.Image]
"""The image, a severity in [0, 1], and the source of all draws -> the damaged image, of the same size and mode."""

_Pixels = NDArray[np.float32]
"""Values in [0, 255], shape (height, width, channels)."""


def degrade(image: Image.Image, config: DegradeConfig, draws: Generator) -> Image.Image:
    """Apply up to `config.most` operations of different kinds, with probability `config.prob`."""
    if draws.random() >= config.prob:
        return image
    order = draws.permutation(len(config.kinds))[: draws.integers(1, config.most + 1)]
    for place in order:
        image = OPERATIONS[config.kinds[place]](image, draws.uniform(*config.severity), draws)
    return image


def noise(image: Image.Image, severity: float, draws: Generator) -> Image.Image:
    """Noise of one of four kinds: additive, growing with the root of the value or with the value, or single pixels."""
    pixels, kind = _pixels(image), draws.integers(4)
    if kind == 3:  # salt and pepper, for each value of its own
        hit = draws.random(pixels.shape, dtype=np.float32)
        share = 0.1 * severity
        return _image(np.where(hit < share, np.where(hit < share / 2, np.float32(0), np.float32(255)), pixels), image)
    normal = draws.standard_normal(pixels.shape, dtype=np.float32)
    match kind:
        case 0:
            spread: _Pixels | float = 255 * 0.2 * severity
        case 1:  # the counts of 12 photons at most
            spread = np.sqrt(255 / 12 * pixels) * np.float32(severity)
        case _:
            spread = pixels * np.float32(0.4 * severity)
    return _image(pixels + normal * spread, image)


def blur(image: Image.Image, severity: float, draws: Generator) -> Image.Image:
    """A Gaussian, a box, a motion along a line, or a zoom."""
    match draws.integers(4):
        case 0:
            return image.filter(ImageFilter.GaussianBlur(3 * severity))
        case 1:
            return image.filter(ImageFilter.BoxBlur(4 * severity))
        case 2:
            return _motion_blur(image, severity, draws)
        case _:
            return _zoom_blur(image, severity)


def _motion_blur(image: Image.Image, severity: float, draws: Generator) -> Image.Image:
    """The mean of the image at up to 12 neighbouring places of a line; its edges go on outwards."""
    pixels, length, angle = _pixels(image), 1 + round(11 * severity), draws.uniform(0, 2 * math.pi)
    height, width = pixels.shape[:2]
    wide = np.pad(pixels, ((length, length), (length, length), (0, 0)), "edge")
    total = np.zeros_like(pixels)
    for step in range(length):
        top, left = (length + round(step * part) for part in (math.sin(angle), math.cos(angle)))
        total += wide[top : top + height, left : left + width]
    return _image(total / length, image)


def _zoom_blur(image: Image.Image, severity: float) -> Image.Image:
    """The mean of the image and of five enlarged ones, the largest by a fifth."""
    width, height = image.size
    total = _pixels(image)
    for step in range(1, 6):
        cut = (1 - 1 / (1 + 0.2 * severity * step / 5)) / 2
        box = (cut * width, cut * height, (1 - cut) * width, (1 - cut) * height)
        total = total + _pixels(image.resize(image.size, Image.Resampling.BILINEAR, box=box))
    return _image(total / 6, image)


def contrast(image: Image.Image, severity: float, draws: Generator) -> Image.Image:
    """Pull each channel towards its mean: a fifth of the contrast is left at severity 1."""
    del draws
    pixels = _pixels(image)
    means = pixels.mean(axis=(0, 1), keepdims=True)
    return _image((pixels - means) * np.float32(1 - 0.8 * severity) + means, image)


def fog(image: Image.Image, severity: float, draws: Generator) -> Image.Image:
    """Add light that varies smoothly over the image, and darken the whole to its former maximum."""
    pixels, (width, height) = _pixels(image), image.size
    light = np.zeros((height, width), dtype=np.float32)
    for octave in range(5):
        cells = draws.random((2 + 2**octave, 2 + 2**octave), dtype=np.float32)
        light += np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)) / 2**octave
    light = (light - light.min()) / max(float(np.ptp(light)), 1e-6)
    amount, largest = 2.5 * severity, max(float(pixels.max()), 1.0) / 255
    return _image((pixels + 255 * amount * light[..., None]) * np.float32(largest / (largest + amount)), image)


def pixelate(image: Image.Image, severity: float, draws: Generator) -> Image.Image:
    """Average over boxes, and show each as a flat square: at severity 1, 0.4 of the pixels on either axis are left."""
    del draws
    small = [max(1, round(side * (1 - 0.6 * severity))) for side in image.size]
    return image.resize((small[0], small[1]), Image.Resampling.BOX).resize(image.size, Image.Resampling.NEAREST)


def affine(image: Image.Image, severity: float, draws: Generator) -> Image.Image:
    """Rotate by up to 20 degrees, scale by up to a quarter, shear by up to 0.2, shift by up to 0.15 of the side.

    Bilinear; what was outside is black.
    """
    turn, scale, shear, right, down = draws.uniform(-severity, severity, 5)
    cos, sin = math.cos(math.radians(20 * turn)), math.sin(math.radians(20 * turn))
    factor, slant, (width, height) = 1.25**-scale, 0.2 * shear, image.size
    a, b, d, e = factor * cos, factor * (slant * cos - sin), factor * sin, factor * (slant * sin + cos)
    middle, centre = (width / 2, height / 2), (width * (0.5 - 0.15 * right), height * (0.5 - 0.15 * down))
    matrix = (a, b, centre[0] - a * middle[0] - b * middle[1], d, e, centre[1] - d * middle[0] - e * middle[1])
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


OPERATIONS: dict[DegradeKind, Operation] = {
    "noise": noise,
    "blur": blur,
    "contrast": contrast,
    "fog": fog,
    "pixelate": pixelate,
    "affine": affine,
}


def _pixels(image: Image.Image) -> _Pixels:
    pixels = np.asarray(image, dtype=np.float32)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _image(pixels: NDArray[np.floating], like: Image.Image) -> Image.Image:
    """The image of these values, rounded and clipped, in the mode of `like`."""
    rounded = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return Image.fromarray(rounded[..., 0] if like.mode == "L" else rounded)
