"""The common corruptions: noise, blur, weather and digital damage, by the package imagecorruptions."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hard_ray.errors import HardrayError
from hard_ray.maths.noise import permutation, seed_of

NAMES = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
EXTRA_NAMES = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""Four more, which the paper reserves for choosing hyper-parameters; they are not part of mCE."""
SMALLEST_SIDE = 32
"""Smallest height and width that the package accepts, in pixels."""
WITH_OWN_SEED = ("impulse_noise", "glass_blur")
"""Corruptions that take a seed instead of drawing from NumPy's global state."""


@dataclass(frozen=True, slots=True)
class Corruption:
    """One common corruption at one severity, from 1 to 5.

    The random draws for an image depend on the corruption, the severity and the sample id alone. Images smaller than
    32 pixels are padded with their edge and cropped back. Grey images are repeated to three channels, and the green
    one is taken: a mean over channels would weaken the noise.

    Source: Hendrycks and Dietterich 2019, arXiv:1903.12261, section 3. The strengths are those of ImageNet-C for every
    image size; CIFAR-10-C uses weaker ones, so its published numbers do not compare with these.
    """

    name: str
    severity: int
    slow: ClassVar[bool] = True

    def __call__(self, images: NDArray[np.uint8], sample_ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Corrupt the images; shape (batch, channels, height, width)."""
        with _numpy_state_kept():
            corrupted = [self._one(image, int(number)) for image, number in zip(images, sample_ids, strict=True)]
        return np.stack(corrupted) if corrupted else images

    def _one(self, image: NDArray[np.uint8], sample_id: int) -> NDArray[np.uint8]:
        from imagecorruptions import corrupt

        channels, height, width = image.shape
        large = np.pad(np.broadcast_to(image, (3, height, width)), ((0, 0), _margins(height), _margins(width)), "edge")
        seed = seed_of("corruption", self.name, self.severity, sample_id) % 2**32
        np.random.seed(seed)
        own = {"seed": seed} if self.name in WITH_OWN_SEED else {}
        damaged = corrupt(np.ascontiguousarray(large.transpose(1, 2, 0)), self.severity, self.name, **own)
        top, left = _margins(height)[0], _margins(width)[0]
        cut: NDArray[np.uint8] = damaged[top : top + height, left : left + width].transpose(2, 0, 1)
        return cut if channels == 3 else cut[1:2]


def check_installed() -> None:
    """Raise a HardrayError if the package cannot be imported."""
    try:
        import imagecorruptions  # noqa: F401
    except ImportError as error:  # the package, or a system library of OpenCV's
        raise HardrayError(
            f"the common corruptions need the package imagecorruptions-imaug, which cannot be imported ({error}); "
            "install it with `pip install '.[corruptions]'` in a clone of hardray, or leave out the suites corruptions "
            "and extra_corruptions (validate.suites, validate.final)"
        ) from None


@functools.cache
def package_version() -> str:
    """Installed version of the package; another version may draw differently."""
    return version("imagecorruptions-imaug")


def sample_of(rows: NDArray[np.int64], count: int | None, *, seed: int) -> NDArray[np.int64]:
    """Choose at most `count` of a split's rows, the same ones for the same seed."""
    if count is None:
        return rows
    return rows[permutation("measured images", len(rows), seed=seed, epoch=0)[:count]]


def _margins(side: int) -> tuple[int, int]:
    """Pixels to add before and after a side that is too short."""
    missing = max(0, SMALLEST_SIDE - side)
    return missing // 2, missing - missing // 2


@contextmanager
def _numpy_state_kept() -> Iterator[None]:
    before = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(before)
