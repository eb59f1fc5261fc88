"""Augmentors: what makes a second, harder view of a batch. One file each."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from hard_ray.config.augmentor import (
    AffineAugmentor,
    AugmentorConfig,
    IdentityAugmentor,
    RandomAffineAugmentor,
    TrivialAugmentor,
)

if TYPE_CHECKING:
    from hard_ray.augmentors.base import Augmentor


def build_augmentor(config: AugmentorConfig) -> Augmentor | None:
    """The augmentor of a configuration; None for the identity, which adds no view."""
    match config:
        case IdentityAugmentor():
            return None
        case AffineAugmentor():
            from hard_ray.augmentors.affine import Affine

            return Affine(config)
        case RandomAffineAugmentor():
            from hard_ray.augmentors.random_affine import RandomAffine

            return RandomAffine(config)
        case TrivialAugmentor():
            from hard_ray.augmentors.trivial_augment import TrivialAugment

            return TrivialAugment(config)
        case _:
            assert_never(config)
