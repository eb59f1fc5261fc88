"""Decode a picture and apply the standard view: resize, crop, flip; on the CPU, to uint8, from its own draws alone."""

from __future__ import annotations

import math
import warnings
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from hard_ray.config.data import DataConfig
from hard_ray.data.content import content_of
from hard_ray.data.depth import UnknownRangeError, to_eight_bits
from hard_ray.data.metadata import orientation_of, turned, without_metadata
from hard_ray.data.readers import Picture, open_picture

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_CROP_TRIES = 10
_THIN = 4
"""Of a picture that is too thin to be resized whole, a middle part of this many times its shorter side is used."""
DRAWS_PER_IMAGE = 2 * _CROP_TRIES + 3
"""Uniform draws for one training view: the flip, the crop's place (2), and area and ratio of each try."""


class UnreadableImageError(Exception):
    """The picture cannot be decoded; the text says why."""


def decode(picture: Picture, *, in_chans: int) -> Image.Image:
    """Decode a picture to grey or RGB of 8 bits, upright, as `data.depth` and `data.metadata` say.

    Of several frames or pages the first is used. Raises UnreadableImageError if it is truncated, not an image, larger
    than Pillow's limit, of an unknown range of values, or fails to decode otherwise.
    """
    try:
        return _decoded(picture, in_chans)
    except UnknownRangeError as error:
        raise UnreadableImageError(str(error)) from error
    except Exception as error:  # Pillow's plugins raise OSError, ValueError, SyntaxError, struct.error, ...
        for encoded in without_metadata(picture) if isinstance(picture, bytes) else ():
            with suppress(Exception):  # then the first error says more
                return _decoded(encoded, in_chans)
        reason = f"{type(error).__name__}: {error}".partition(" <_io.")[0]  # Pillow appends the stream's repr
        if isinstance(error, UnidentifiedImageError) and isinstance(picture, bytes):
            reason = f"no image can be read from it: {content_of(picture)}"
        raise UnreadableImageError(reason) from error


def _decoded(picture: Picture, in_chans: int) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are about metadata, and `PYTHONWARNINGS=error` would make them errors
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = open_picture(picture)
        converted = to_eight_bits(image, in_chans=in_chans)
        return turned(converted, orientation_of(image))


def eval_view(image: Image.Image, config: DataConfig) -> NDArray[np.uint8]:
    """Resize the shorter side to img_size / crop_pct and crop the centre: shape (channels, img_size, img_size)."""
    size = config.img_size
    if config.crop in ("none", "padded") and config.crop_pct == 1.0:
        return to_array(_resize_whole(image, config))
    side = round(size / config.crop_pct)
    image = _without_ends(image, side)
    factor = side / min(image.size)
    width, height = (max(side, round(length * factor)) for length in image.size)
    if image.size != (width, height):
        image = image.resize((width, height), _RESAMPLING[config.interpolation])
    left, top = (width - size) // 2, (height - size) // 2
    return to_array(image.crop((left, top, left + size, top + size)))


def _without_ends(image: Image.Image, side: int) -> Image.Image:
    """The picture, or only its middle if resizing its shorter side to `side` would exceed Pillow's limit of pixels."""
    if max(image.size) / min(image.size) * side**2 <= _most_pixels():
        return image
    width, height = (min(length, _THIN * min(image.size)) for length in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _most_pixels() -> float:
    return Image.MAX_IMAGE_PIXELS or math.inf


def eval_view_settings(config: DataConfig) -> dict[str, Any]:
    """The settings that decide an evaluation view."""
    keys = ("img_size", "in_chans", "interpolation", "crop_pct", "digit_size")
    found = {key: getattr(config, key) for key in keys if hasattr(config, key)}
    return {**found, "whole": config.crop in ("none", "padded") and config.crop_pct == 1.0}


def train_view(image: Image.Image, config: DataConfig, draws: NDArray[np.float64]) -> NDArray[np.uint8]:
    """`train_crop` as an array, shape (channels, img_size, img_size)."""
    return to_array(train_crop(image, config, draws))


def train_crop(image: Image.Image, config: DataConfig, draws: NDArray[np.float64]) -> Image.Image:
    """The cropped and flipped image, of img_size, by `DRAWS_PER_IMAGE` uniform numbers of this row."""
    match config.crop:
        case "none":
            view = _resize_whole(image, config)
        case "padded":
            view = _padded_crop(_resize_whole(image, config), config, draws)
        case "resized":
            box = _resized_crop_box(image.size, config, draws)
            size = (config.img_size, config.img_size)
            view = image.resize(size, _RESAMPLING[config.interpolation], box=box)
    if draws[0] < config.hflip:
        view = ImageOps.mirror(view)
    return view


def _resize_whole(image: Image.Image, config: DataConfig) -> Image.Image:
    size = (config.img_size, config.img_size)
    if config.img_size * image.height > _most_pixels():  # Pillow resizes the width first, which would exceed the limit
        image = image.resize((image.width, config.img_size), _RESAMPLING[config.interpolation])
    return image if image.size == size else image.resize(size, _RESAMPLING[config.interpolation])


def _padded_crop(image: Image.Image, config: DataConfig, draws: NDArray[np.float64]) -> Image.Image:
    reach = 2 * config.crop_padding + 1
    left, top = int(draws[1] * reach) - config.crop_padding, int(draws[2] * reach) - config.crop_padding
    return image.crop((left, top, left + config.img_size, top + config.img_size))


def _resized_crop_box(
    size: tuple[int, int], config: DataConfig, draws: NDArray[np.float64]
) -> tuple[float, float, float, float]:
    """A box of random area and ratio: ten tries, then the centre. Source: Szegedy et al. 2014, arXiv:1409.4842."""
    width, height = size
    log_ratio = np.log(config.ratio)
    for share, shape in zip(draws[3::2], draws[4::2], strict=False):
        area = width * height * (config.scale[0] + share * (config.scale[1] - config.scale[0]))
        ratio = math.exp(log_ratio[0] + shape * (log_ratio[1] - log_ratio[0]))
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            left = int(draws[1] * (width - box_width + 1))
            top = int(draws[2] * (height - box_height + 1))
            return (left, top, left + box_width, top + box_height)
    ratio = min(max(width / height, config.ratio[0]), config.ratio[1])
    box_width, box_height = min(width, round(height * ratio)), min(height, round(width / ratio))
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return (left, top, left + box_width, top + box_height)


def to_array(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of a grey or RGB image, shape (channels, height, width)."""
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
