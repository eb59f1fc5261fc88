"""The stronger training view: timm's transforms, damage and erasing after the crop and the flip.

timm and torchvision draw from the process's three global generators. They are set for each view by its purpose, the
seed, the epoch and the image, so that a view depends on nothing else, and get their former states back at the end.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from hard_ray.config.data import DataConfig
from hard_ray.config.view import AugmentConfig, describe_augment
from hard_ray.data.degrade import degrade
from hard_ray.data.views import to_array
from hard_ray.errors import DataError, readable
from hard_ray.maths.noise import seed_of

Transform = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True, slots=True)
class Augment:
    """Makes views of an image that is cropped and flipped; holds no state."""

    config: AugmentConfig
    vflip: Transform | None
    secondary: Transform
    """timm's transforms between flips and tensors, of RGB images."""
    erasing: Callable[[Any], Any] | None
    """timm's random erasing, of a normalised tensor."""
    mean: NDArray[np.float32]
    """Of the normalisation in which timm erases, on the scale of 0 to 1; shape (channels, 1, 1)."""
    std: NDArray[np.float32]

    def base(self, image: Image.Image, key: tuple[int, int, int]) -> Image.Image:
        """The image that all views are made of, for (seed, epoch, sample id); leaves the generators at its draws."""
        _seed_all(seed_of("augment", *key, 0))
        return image if self.vflip is None else self.vflip(image)

    def view(self, base: Image.Image, key: tuple[int, int, int], split: int = 0) -> NDArray[np.uint8]:
        """A view, shape (channels, height, width): of the generators as `base` left them, or of a split's own draws."""
        if split:
            _seed_all(seed_of("augment", *key, split))
        image = self._colours(base)
        if self.config.degrade is not None:
            bits = np.random.PCG64(seed_of("degrade", *key, split))
            image = degrade(image, self.config.degrade, np.random.Generator(bits))
        return self._erased(to_array(image))

    def _colours(self, image: Image.Image) -> Image.Image:
        """Apply timm's transforms; a grey image is an RGB image meanwhile, whose channels stay equal."""
        if image.mode != "L":
            return self.secondary(image)
        return self.secondary(image.convert("RGB")).getchannel(0)

    def _erased(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The pixels with timm's values in the erased boxes; all others keep their bits."""
        if self.erasing is None:
            return pixels
        import torch

        erased: NDArray[np.float32] = self.erasing(torch.full(pixels.shape, torch.nan)).numpy()
        kept = np.isnan(erased)
        if kept.all():
            return pixels
        values = np.clip(np.rint(255 * (erased * self.std + self.mean)), 0, 255)
        return np.where(kept, pixels, np.nan_to_num(values).astype(np.uint8))


def augmented(
    crops: Sequence[Image.Image],
    config: DataConfig,
    *,
    seed: int,
    epochs: NDArray[np.int64],
    sample_ids: NDArray[np.int64],
    with_splits: bool = True,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """The views of cropped images, shape (batch, channels, height, width), and their splits.

    Splits have the shape (batch, splits - 1, channels, height, width), or are None where none are set or wanted. With
    splits, the views are the crops themselves, flipped vertically or not.
    """
    side, channels, settings = config.img_size, config.in_chans, config.augment
    views = np.empty((len(crops), channels, side, side), dtype=np.uint8)
    if settings is None:
        for number, crop in enumerate(crops):
            views[number] = to_array(crop)
        return views, None
    augment = build_augment(settings, img_size=side, in_chans=channels, interpolation=config.interpolation)
    count = max(0, settings.splits - 1) if with_splits else 0
    splits = np.empty((len(crops), count, channels, side, side), dtype=np.uint8)
    with _generators_kept():
        for number, crop in enumerate(crops):
            key = (seed, int(epochs[number]), int(sample_ids[number]))
            base = augment.base(crop, key)
            views[number] = to_array(base) if settings.splits else augment.view(base, key)
            for split in range(count):
                splits[number, split] = augment.view(base, key, split + 1)
    return views, splits if count else None


@functools.lru_cache(maxsize=4)
def build_augment(config: AugmentConfig, *, img_size: int, in_chans: int, interpolation: str) -> Augment:
    """Build timm's transforms for these settings, once in a process."""
    from timm.data.auto_augment import posterize
    from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    from timm.data.transforms_factory import create_transform

    mean, std = _for_channels(IMAGENET_DEFAULT_MEAN, in_chans), _for_channels(IMAGENET_DEFAULT_STD, in_chans)
    primary, secondary, final = create_transform(
        img_size,
        is_training=True,
        hflip=0.0,
        vflip=config.vflip,
        color_jitter=cast(float, config.color_jitter),  # None too: no jitter
        color_jitter_prob=config.color_jitter_prob,
        grayscale_prob=config.grayscale,
        gaussian_blur_prob=config.gaussian_blur,
        auto_augment=config.auto_augment,
        interpolation=interpolation,
        mean=mean,
        std=std,
        re_prob=config.reprob,
        re_mode=config.remode,
        re_count=config.recount,
        separate=True,
    )
    for operation in _operations(secondary.transforms):
        if operation.aug_fn is posterize:
            operation.aug_fn = _posterize
    return Augment(
        config,
        vflip=primary.transforms[-1] if config.vflip > 0 else None,
        secondary=secondary,
        erasing=final.transforms[-1] if config.reprob > 0 else None,
        mean=np.array(mean[:in_chans], dtype=np.float32).reshape(-1, 1, 1),
        std=np.array(std[:in_chans], dtype=np.float32).reshape(-1, 1, 1),
    )


def _operations(transforms: Iterable[Any]) -> Iterator[Any]:
    """The operations of timm's policies."""
    for transform in transforms:
        yield from getattr(transform, "ops", ())  # RandAugment, AugMix
        for part in getattr(transform, "policy", ()):  # AutoAugment
            yield from part


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """Keep the upper bits of each value; timm asks for none at some magnitudes, and Pillow 13 makes no image black."""
    return Image.new(image.mode, image.size) if bits < 1 else ImageOps.posterize(image, min(bits, 8))


def _for_channels(values: tuple[float, ...], in_chans: int) -> tuple[float, ...]:
    """Normalisation of three channels as timm has it; for grey images its mean, so that the channels stay equal."""
    return values if in_chans == 3 else (sum(values) / 3,) * 3


def check_augment(config: DataConfig) -> None:
    """Apply `data.augment` to a few images of noise; raises DataError if timm cannot do what it says."""
    if config.augment is None:
        return
    shape = (config.img_size, config.img_size, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    image = Image.fromarray(pixels) if config.in_chans == 3 else Image.fromarray(pixels[..., 0])
    try:
        augmented([image] * 8, config, seed=0, epochs=np.zeros(8, dtype=np.int64), sample_ids=np.arange(8))
    except Exception as error:  # timm asserts, and NumPy, Pillow and torch raise errors of their own
        raise DataError(
            f"data.augment ({describe_augment(config.augment)}) cannot be applied to images of {config.img_size} "
            f"pixels ({readable(error)}); want operations that timm can do; look at data.augment.auto_augment"
        ) from error


def _seed_all(seed: int) -> None:
    """Set the generators that timm and torchvision draw from on the CPU."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would seed the GPUs too


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Give the global generators their states back at the end of the block."""
    import torch

    before = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.default_generator.set_state(before[2])
