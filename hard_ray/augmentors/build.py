"""Build the augmentor of a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from hard_ray.config.augmentor import (
    AdversarialAugmentor,
    AffineAugmentor,
    AugmentorConfig,
    AutoAugmentor,
    CropFlipAugmentor,
    CutmixAugmentor,
    CutoutAugmentor,
    FlipAugmentor,
    GeneratedAugmentor,
    IdentityAugmentor,
    LearnedPolicyAugmentor,
    MixAugmentor,
    MixupAugmentor,
    PickAugmentor,
    RandAugmentor,
    RandomAffineAugmentor,
    RandomPolicyAugmentor,
    SequenceAugmentor,
    SequencePart,
    TrivialAugmentor,
    VaeAugmentor,
)

if TYPE_CHECKING:
    from hard_ray.augmentors.base import Augmentor


def build_augmentor(config: AugmentorConfig, *, in_chans: int, img_size: int) -> Augmentor | None:
    """The augmentor of a configuration; None for the identity, which adds no view.

    Images have `in_chans` channels and `img_size` pixels a side. Raises ModelError if an autoencoder cannot be used.
    """
    match config:
        case IdentityAugmentor():
            return None
        case SequenceAugmentor() | PickAugmentor():
            return _combination(config, in_chans=in_chans, img_size=img_size)
        case _:
            return _one(config, in_chans=in_chans, img_size=img_size)


def _combination(config: SequenceAugmentor | PickAugmentor, *, in_chans: int, img_size: int) -> Augmentor:
    from hard_ray.augmentors.pick import Pick
    from hard_ray.augmentors.sequence import Chain

    inner = (config.augmentor,) if isinstance(config, PickAugmentor) else config.augmentors
    parts = []
    for part in inner:
        weaker = part.model_copy(update={"strength": part.strength * config.strength})
        built = build_augmentor(weaker, in_chans=in_chans, img_size=img_size)
        assert built is not None
        parts.append((part.kind, built))
    return Pick(config, parts[0][1]) if isinstance(config, PickAugmentor) else Chain(parts)


def _one(  # noqa: PLR0911, PLR0912  (one for each kind)
    config: SequencePart, *, in_chans: int, img_size: int
) -> Augmentor:
    match config:
        case AffineAugmentor():
            from hard_ray.augmentors.affine import Affine

            return Affine(config)
        case LearnedPolicyAugmentor() | RandomPolicyAugmentor():
            from hard_ray.augmentors.learned_policy import LearnedPolicy, RandomPolicy

            if isinstance(config, LearnedPolicyAugmentor):
                return LearnedPolicy(config, in_chans=in_chans, img_size=img_size)
            return RandomPolicy(config, in_chans=in_chans, img_size=img_size)
        case MixAugmentor():
            from hard_ray.augmentors.mix import Mix

            return Mix(config, in_chans=in_chans)
        case VaeAugmentor():
            from hard_ray.augmentors.vae import LatentPerturbation
            from hard_ray.networks.autoencoders.build import build_autoencoder

            return LatentPerturbation(config, build_autoencoder(config.autoencoder, in_chans), img_size=img_size)
        case RandomAffineAugmentor():
            from hard_ray.augmentors.random_affine import RandomAffine

            return RandomAffine(config)
        case FlipAugmentor() | CropFlipAugmentor():
            from hard_ray.augmentors.standard import CropFlip, Flip

            return Flip(config) if isinstance(config, FlipAugmentor) else CropFlip(config)
        case CutoutAugmentor() | CutmixAugmentor():
            from hard_ray.augmentors.boxes import Cutmix, Cutout

            return Cutout(config) if isinstance(config, CutoutAugmentor) else Cutmix(config)
        case MixupAugmentor():
            from hard_ray.augmentors.mixup import Mixup

            return Mixup(config)
        case AutoAugmentor() | RandAugmentor() | TrivialAugmentor():
            from hard_ray.augmentors.policies import Policy

            return Policy(config)
        case AdversarialAugmentor():
            from hard_ray.augmentors.adversarial import Adversarial
            from hard_ray.networks.autoencoders.build import build_autoencoder

            coder = build_autoencoder(config.autoencoder, in_chans) if config.autoencoder is not None else None
            return Adversarial(config, coder)
        case GeneratedAugmentor():
            from hard_ray.augmentors.generated import Generated

            return Generated(config)
        case _:
            assert_never(config)
