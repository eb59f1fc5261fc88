"""What makes a second, harder view of a batch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from hard_ray.config.autoencoder import AutoencoderConfig
from hard_ray.config.base import Config, Degrees, Fraction


class IdentityAugmentor(Config):
    """No second view: the control."""

    kind: Literal["identity"] = "identity"


class _AffineBounds(Config):
    """How far a spatial transform may go."""

    strength: Fraction = 1.0
    """0 is the identity; 1 reaches every bound below."""
    max_shift: Annotated[float, Field(ge=0.0, le=1.0)] = 0.25
    """Largest shift on either axis, as a share of the image's side."""
    max_rotation: Degrees = 30.0
    """Largest rotation either way, in degrees."""
    max_scale: Annotated[float, Field(ge=1.0, le=4.0)] = 1.25
    """Largest magnification; its inverse is the smallest."""
    max_shear: Degrees = 15.0
    """Largest horizontal shear either way, in degrees."""
    padding: Literal["zeros", "border", "reflection"] = "zeros"
    """What stands where the transform looks outside the image."""


class LearnedAugmentor(Config):
    """What every augmentor has that is trained against the student."""

    strength: Fraction = 1.0
    """0 is the identity, and learns nothing."""
    lr: PositiveFloat = 1e-3
    """Learning rate of the augmentor's AdamW."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of the augmentor's AdamW."""


class AffineAugmentor(_AffineBounds, LearnedAugmentor):
    """HARD-Affine: a learned distribution of shifts, rotations, scales and shears."""

    kind: Literal["affine"] = "affine"
    noise_dim: PositiveInt = 128
    """Normal noise values per image that the transform is computed from."""
    hidden_dim: PositiveInt = 256
    """Width of the hidden layer between noise and transform."""
    init_spread: PositiveFloat = 1.0
    """Standard deviation of the transform's parameters before the tanh, at the start."""
    replay: Fraction = 0.5
    """The share of the student's images that an earlier state of the augmentor transforms."""
    history: PositiveInt = 16
    """Earlier states that are kept; once full, each new one takes the place of one of them at random."""
    remember_every: PositiveInt = 10
    """Augmentor updates between two states that are kept."""


class RandomAffineAugmentor(_AffineBounds):
    """Shifts, rotations, scales and shears drawn uniformly: nothing is learned."""

    kind: Literal["random_affine"] = "random_affine"


class TrivialAugmentor(Config):
    """TrivialAugment Wide: one operation per image, drawn uniformly with its magnitude."""

    kind: Literal["trivial_augment"] = "trivial_augment"
    strength: Fraction = 1.0
    """The probability that an image is changed; 0 is the identity."""


class MixAugmentor(LearnedAugmentor):
    """HARD-Mix: a learned mask blends each image with another of the batch."""

    kind: Literal["mix"] = "mix"
    strength: Fraction = 1.0
    """0 is the identity; at s, at most s of a pixel is the partner's."""
    mask_size: Annotated[int, Field(ge=1, le=64)] = 4
    """Cells of the mask on either axis, before it is enlarged."""
    noise_dim: PositiveInt = 32
    """Normal noise values per image that the mask is computed from, beside both images."""
    hidden_dim: PositiveInt = 32
    """Channels of the network that looks at both images."""
    init_spread: PositiveFloat = 2.0
    """Standard deviation of the mask before the sigmoid, at the start."""


class VaeAugmentor(LearnedAugmentor):
    """HARD-VAE: a learned perturbation of the latent of a pretrained autoencoder."""

    kind: Literal["vae"] = "vae"
    strength: Fraction = 1.0
    """0 is the identity; at s the latent moves by s times the perturbation."""
    autoencoder: AutoencoderConfig
    """The pretrained autoencoder; `hardray train-autoencoder` makes one."""
    residual: bool = True
    """Add the difference of two decodings to the image, so that what the decoder loses is kept."""
    max_delta: PositiveFloat = 1.0
    """Largest perturbation, in standard deviations of each latent channel."""
    noise_channels: PositiveInt = 4
    """Normal noise values per latent cell that the perturbation is computed from, beside the latent."""
    hidden_dim: PositiveInt = 64
    """Channels of the perturbation network."""
    init_spread: PositiveFloat = 0.5
    """Standard deviation of the perturbation before the tanh, at the start."""
    finetune_lr: PositiveFloat | None = None
    """Learning rate of the autoencoder; unset: it is frozen."""


SequencePart = Annotated[
    AffineAugmentor | RandomAffineAugmentor | TrivialAugmentor | MixAugmentor | VaeAugmentor,
    Field(discriminator="kind"),
]


class SequenceAugmentor(Config):
    """Several augmentors, learned and fixed, one after the other."""

    kind: Literal["sequence"] = "sequence"
    strength: Fraction = 1.0
    """Multiplies the strength of every part."""
    augmentors: Annotated[tuple[SequencePart, ...], Field(min_length=1)]
    """The parts, in the order in which they are applied."""


AugmentorConfig = Annotated[
    IdentityAugmentor
    | AffineAugmentor
    | RandomAffineAugmentor
    | TrivialAugmentor
    | MixAugmentor
    | VaeAugmentor
    | SequenceAugmentor,
    Field(discriminator="kind"),
]


def is_learned(config: AugmentorConfig | SequencePart) -> bool:
    """Whether the augmentor, or a part of it, is trained against the student."""
    if isinstance(config, SequenceAugmentor):
        return any(is_learned(part) for part in config.augmentors)
    return isinstance(config, LearnedAugmentor)
