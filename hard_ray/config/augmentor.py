"""What makes a second, harder view of a batch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

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


class AffineAugmentor(_AffineBounds):
    """HARD-Affine: a learned distribution of shifts, rotations, scales and shears."""

    kind: Literal["affine"] = "affine"
    noise_dim: PositiveInt = 128
    """Normal noise values per image that the transform is computed from."""
    hidden_dim: PositiveInt = 256
    """Width of the hidden layer between noise and transform."""
    init_spread: PositiveFloat = 1.0
    """Standard deviation of the transform's parameters before the tanh, at the start."""
    lr: PositiveFloat = 1e-3
    """Learning rate of the augmentor's AdamW."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of the augmentor's AdamW."""


class RandomAffineAugmentor(_AffineBounds):
    """Shifts, rotations, scales and shears drawn uniformly: nothing is learned."""

    kind: Literal["random_affine"] = "random_affine"


class TrivialAugmentor(Config):
    """TrivialAugment Wide: one operation per image, drawn uniformly with its magnitude."""

    kind: Literal["trivial_augment"] = "trivial_augment"
    strength: Fraction = 1.0
    """The probability that an image is changed; 0 is the identity."""


AugmentorConfig = Annotated[
    IdentityAugmentor | AffineAugmentor | RandomAffineAugmentor | TrivialAugmentor,
    Field(discriminator="kind"),
]
