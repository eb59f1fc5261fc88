"""Zero-shot heads: class names as CLIP's text tower sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hard_ray.config.heads import ZeroShotHead
from hard_ray.errors import ModelError
from hard_ray.networks.network import ImageSpec
from hard_ray.networks.towers import Tower
from hard_ray.preparation.heads import FittedHead


@dataclass(frozen=True, slots=True)
class ZeroShot:
    """CLIP's image tower, the head of its texts, and the images that it takes."""

    tower: Tower
    fitted: FittedHead
    names: tuple[str, ...]
    images: ImageSpec


def fit_zero_shot(model: str, head: ZeroShotHead, say: Callable[[str], None]) -> ZeroShot:
    """TODO."""
    raise ModelError("todo")


def zero_shot_lines(model: str, head: ZeroShotHead) -> list[tuple[str, str]]:
    """TODO."""
    raise ModelError("todo")
