"""Augmentors: what makes a second, harder view of a batch. One file each."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from hard_ray.config.augmentor import (
    AffineAugmentor,
    AugmentorConfig,
    IdentityAugmentor,
    MixAugmentor,
    RandomAffineAugmentor,
    SequenceAugmentor,
    TrivialAugmentor,
    VaeAugmentor,
)

if TYPE_CHECKING:
    from hard_ray.augmentors.base import Augmentor


def build_augmentor(config: AugmentorConfig, *, in_chans: int, img_size: int) -> Augmentor | None:  # noqa: PLR0911  (one for each kind)
    """The augmentor of a configuration; None for the identity, which adds no view.

    Args:
        config: which augmentor, and its settings.
        in_chans: channels of the images.
        img_size: height and width of the images, in pixels.

    Raises:
        ModelError: the autoencoder that HARD-VAE wants cannot be used.
    """
    match config:
        case IdentityAugmentor():
            return None
        case AffineAugmentor():
            from hard_ray.augmentors.affine import Affine

            return Affine(config)
        case MixAugmentor():
            from hard_ray.augmentors.mix import Mix

            return Mix(config, in_chans=in_chans)
        case VaeAugmentor():
            from hard_ray.augmentors.vae import LatentPerturbation
            from hard_ray.networks.autoencoder import build_autoencoder

            return LatentPerturbation(config, build_autoencoder(config.autoencoder, in_chans), img_size=img_size)
        case SequenceAugmentor():
            return _chain(config, in_chans=in_chans, img_size=img_size)
        case RandomAffineAugmentor():
            from hard_ray.augmentors.random_affine import RandomAffine

            return RandomAffine(config)
        case TrivialAugmentor():
            from hard_ray.augmentors.trivial_augment import TrivialAugment

            return TrivialAugment(config)
        case _:
            assert_never(config)


def _chain(config: SequenceAugmentor, *, in_chans: int, img_size: int) -> Augmentor:
    from hard_ray.augmentors.sequence import Chain

    parts = []
    for part in config.augmentors:
        weaker = part.model_copy(update={"strength": part.strength * config.strength})
        built = build_augmentor(weaker, in_chans=in_chans, img_size=img_size)
        assert built is not None
        parts.append((part.kind, built))
    return Chain(parts)
