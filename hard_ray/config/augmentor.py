"""Settings of augmentors; `hard_ray/augmentors/` has the networks and functions that they describe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from hard_ray.config.autoencoder import AutoencoderConfig
from hard_ray.config.base import Config, Degrees, Fraction, Temperature
from hard_ray.config.places import DataPath


class IdentityAugmentor(Config):
    """No second view: the control."""

    kind: Literal["identity"] = "identity"


class _AffineBounds(Config):
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
    """Values of pixels that the transform takes from outside the image."""


class LearnedAugmentor(Config):
    """Settings of every augmentor that is trained against the student."""

    strength: Fraction = 1.0
    """0 is the identity, and nothing is learned."""
    lr: PositiveFloat = 1e-3
    """Learning rate of the augmentor's AdamW."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of the augmentor's AdamW."""
    lambda_p: NonNegativeFloat = 0.0
    """Weight of the prior in the augmentor's loss: the divergence of a batch's draws from those of the start."""


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
    """Share of the student's images that are transformed by an earlier state of the augmentor."""
    history: PositiveInt = 16
    """Number of earlier states that are kept; once full, each new state replaces a random one."""
    remember_every: PositiveInt = 10
    """Augmentor updates between kept states."""


class RandomAffineAugmentor(_AffineBounds):
    """Shifts, rotations, scales and shears drawn uniformly; nothing is learned."""

    kind: Literal["random_affine"] = "random_affine"


class PolicyOperations(Config):
    """Operations on images, each with a probability of its own, and the bounds of their magnitudes."""

    strength: Fraction = 1.0
    """0 is the identity; 1 reaches every bound below."""
    widen: Annotated[float, Field(gt=0.0, le=8.0)] = 1.0
    """Factor of all bounds, up to what an operation can do."""
    operations: PositiveFloat = 3.0
    """Operations that are applied to an image by the prior, on average; all have the same probability."""
    max_shift: Fraction = 0.25
    """Largest shift on either axis, as a share of the image's side. Of this bound and those below: 0 leaves the
    operation out."""
    max_rotation: Degrees = 40.0
    """Largest rotation either way, in degrees."""
    max_scale: Annotated[float, Field(ge=1.0, le=4.0)] = 1.6
    """Largest magnification; its inverse is the smallest. Of this bound and the other factors: 1 leaves it out."""
    max_shear: Degrees = 25.0
    """Largest horizontal shear either way, in degrees."""
    flip: bool = True
    """Whether images are mirrored left to right."""
    max_brightness: Fraction = 0.4
    """Largest value that is added to all pixels, or taken from them."""
    max_contrast: Annotated[float, Field(ge=1.0, le=16.0)] = 4.0
    """Largest factor of the distance of pixels from the image's mean; its inverse is the smallest."""
    max_saturation: Annotated[float, Field(ge=1.0, le=16.0)] = 4.0
    """Largest factor of the distance of pixels from their grey value; its inverse is the smallest. Colour only."""
    max_hue: Degrees = 60.0
    """Largest turn of the hue either way, in degrees of the colour circle. Colour only."""
    max_gamma: Annotated[float, Field(ge=1.0, le=8.0)] = 2.5
    """Largest exponent of pixel values; its inverse is the smallest."""
    max_sharpness: Annotated[float, Field(ge=0.0, le=16.0)] = 4.0
    """Largest weight of the difference from a smoothed image, which is added to the image."""
    max_blur: Annotated[float, Field(ge=0.0, le=0.25)] = 0.06
    """Largest standard deviation of a Gaussian blur, as a share of the image's side: 2 pixels of 32."""
    max_gaussian_noise: Fraction = 0.2
    """Largest standard deviation of additive noise."""
    max_shot_noise: Fraction = 0.3
    """Largest standard deviation of noise at the value 1; it grows with the root of the value."""
    max_sparse_noise: Fraction = 0.15
    """Largest share of pixels that become black or white."""
    max_haze: Fraction = 0.8
    """Largest share of light that replaces the image, smoothly varying over it."""
    max_pixelation: Annotated[float, Field(ge=1.0, le=16.0)] = 4.0
    """Largest side of the flat squares that replace pixels, in pixels of an image of 32."""
    max_erasing: Fraction = 0.6
    """Largest side of a grey square at a random place, as a share of the image's side."""
    padding: Literal["zeros", "border", "reflection"] = "zeros"
    """Values of pixels that a shift, rotation, scale or shear takes from outside the image."""


class LearnedPolicyAugmentor(PolicyOperations, LearnedAugmentor):
    """HARD-Policy: learned probabilities and magnitudes of geometric and photometric operations, noise and erasing."""

    kind: Literal["policy"] = "policy"
    lambda_p: NonNegativeFloat = 0.1
    """Weight of the prior in the augmentor's loss: the divergence of a batch's draws from those of the start."""
    condition: Literal["noise", "image"] = "image"
    """What the draws depend on: `noise` alone, or noise and the image."""
    noise_dim: PositiveInt = 32
    """Normal noise values per image that the distribution of its draws is computed from."""
    hidden_dim: PositiveInt = 64
    """Width of the hidden layer, and channels of the look at the image."""
    gate_temperature: PositiveFloat = 0.5
    """Temperature of the relaxed choice whether an operation is applied; the choice itself is hard."""
    replay: Fraction = 0.5
    """Share of the student's images that are drawn for by an earlier state of the augmentor."""
    history: PositiveInt = 16
    """Number of earlier states that are kept; once full, each new state replaces a random one."""
    remember_every: PositiveInt = 10
    """Augmentor updates between kept states."""


class RandomPolicyAugmentor(PolicyOperations):
    """The operations of HARD-Policy with the probabilities and magnitudes of its prior; nothing is learned."""

    kind: Literal["random_policy"] = "random_policy"


class DrawnAugmentor(Config):
    """Settings of every augmentor that draws at random and learns nothing."""

    strength: Fraction = 1.0
    """Probability that the transform is applied; 0 is the identity."""
    per: Literal["batch", "image"] = "batch"
    """One draw per batch, as in the code of arXiv 2012.02909, or one per image."""


class FlipAugmentor(DrawnAugmentor):
    """A horizontal flip with probability 1/2."""

    kind: Literal["flip"] = "flip"


class CropFlipAugmentor(DrawnAugmentor):
    """A second draw of the standard view: a random crop of the padded image, and a flip with probability 1/2."""

    kind: Literal["crop_flip"] = "crop_flip"
    padding: Fraction = 0.125
    """Zeros added on every side before the crop, as a share of the image's side: 4 pixels of 32."""


class CutoutAugmentor(DrawnAugmentor):
    """Cutout (arXiv 1708.04552): a square of one colour at a random place of the image."""

    kind: Literal["cutout"] = "cutout"
    strength: Fraction = 1.0
    """Factor of the area that is cut out; 0 is the identity."""
    size: Fraction = 0.25
    """The square's side as a share of the image's: 8 pixels of 32, 16 of 64, 56 of 224."""
    fill: Fraction = 0.5
    """Value of the square's pixels; mid-grey is close to the mean, which the paper fills in after normalisation."""


class MixupAugmentor(DrawnAugmentor):
    """Mixup (arXiv 1710.09412): a weighted mean of an image and another of the batch."""

    kind: Literal["mixup"] = "mixup"
    strength: Fraction = 1.0
    """At strength s, the image's own weight is 1 - s (1 - m), with m from the Beta distribution; 0 is the identity."""
    alpha: PositiveFloat = 1.0
    """The weight is drawn from Beta(alpha, alpha)."""


class CutmixAugmentor(DrawnAugmentor):
    """CutMix (arXiv 1905.04899): a box of the image is replaced by the same box of another image of the batch."""

    kind: Literal["cutmix"] = "cutmix"
    strength: Fraction = 1.0
    """Factor of the area of the box; 0 is the identity."""
    alpha: PositiveFloat = 1.0
    """The share of the area outside the box is drawn from Beta(alpha, alpha)."""


class AutoAugmentor(DrawnAugmentor):
    """AutoAugment (arXiv 1805.09501): a published policy of two operations, in torchvision's version."""

    kind: Literal["auto_augment"] = "auto_augment"
    policy: Literal["cifar10", "imagenet", "svhn"] = "cifar10"
    """Data set on which the policy was learned."""


class RandAugmentor(DrawnAugmentor):
    """RandAugment (arXiv 1909.13719): several operations of one magnitude, in torchvision's version."""

    kind: Literal["rand_augment"] = "rand_augment"
    num_ops: PositiveInt = 2
    """Operations applied one after the other."""
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """Magnitude of the operations, from 0 to 30."""


class TrivialAugmentor(DrawnAugmentor):
    """TrivialAugment Wide (arXiv 2103.10158): one operation; both it and its magnitude are drawn uniformly."""

    kind: Literal["trivial_augment"] = "trivial_augment"


PolicyAugmentor = AutoAugmentor | RandAugmentor | TrivialAugmentor


class AttackConfig(Config):
    """Gradient ascent on the teacher's cross-entropy to the labels, within a ball around the image."""

    norm: Literal["l2", "linf"] = "l2"
    """Norm of the ball, over all pixels of an image in [0, 1]."""
    eps: PositiveFloat = 0.1
    """Radius of the ball."""
    step_size: PositiveFloat = 0.01
    """Length of each step in that norm."""
    steps: PositiveInt = 1
    """Steps of ascent; each takes one gradient of the teacher."""
    random_start: Fraction = 0.8
    """Probability that the ascent starts at a random point of the ball."""


class AdversarialAugmentor(AttackConfig):
    """Adversarial images of the teacher, made during training (DAD, arXiv 2311.01441, without its stored set)."""

    kind: Literal["adversarial"] = "adversarial"
    strength: Fraction = 1.0
    """Factor of the radius and the step; 0 is the identity."""
    autoencoder: AutoencoderConfig | None = None
    """Discretises the image before and after the ascent, as DAD does; unset: no discretisation."""


class GeneratedAugmentor(Config):
    """Images that `hardray generate` made beforehand, looked up by sample id."""

    kind: Literal["generated"] = "generated"
    path: DataPath
    """Folder of the generated set, or its URL."""
    strength: Fraction = 1.0
    """Probability that an image is replaced by its generated one; 0 is the identity."""
    join: Literal["mixup", "cutmix", "either"] | None = None
    """Mix clean and generated images in one batch, as DAD's code does; unset: only the generated images."""
    alpha: PositiveFloat = 1.0
    """`join` draws shares from Beta(alpha, alpha)."""


class MixAugmentor(LearnedAugmentor):
    """HARD-Mix: a learned mask blends each image with another image of the batch."""

    kind: Literal["mix"] = "mix"
    strength: Fraction = 1.0
    """0 is the identity; at s, a pixel takes at most the share s from the other image."""
    mask_size: Annotated[int, Field(ge=1, le=64)] = 4
    """Cells of the mask on each axis, before it is enlarged."""
    noise_dim: PositiveInt = 32
    """Normal noise values per image; the mask is computed from them and both images."""
    hidden_dim: PositiveInt = 32
    """Channels of the network that computes the mask."""
    init_spread: PositiveFloat = 2.0
    """Standard deviation of the mask before the sigmoid, at the start."""


_Change = Annotated[float, Field(gt=0.0, le=1.0)]


class VaeAugmentor(LearnedAugmentor):
    """HARD-VAE: a learned perturbation of the latent of a pretrained autoencoder."""

    kind: Literal["vae"] = "vae"
    strength: Fraction = 1.0
    """0 is the identity; at s, the latent moves by s times the perturbation."""
    autoencoder: AutoencoderConfig
    """The pretrained autoencoder; `hardray train-autoencoder` makes one."""
    residual: bool = True
    """Add the difference of two decodings to the image, which keeps the details that the decoder loses."""
    max_delta: PositiveFloat | tuple[PositiveFloat, ...] = 1.0
    """Largest perturbation, in standard deviations: one value, or one per latent channel or direction."""
    max_change: _Change | tuple[_Change, ...] | None = None
    """Largest change of a pixel at strength 1, of images in [0, 1]: one value, or one per colour channel; unset: no
    bound. Needs `residual`."""
    directions: PositiveInt | None = None
    """Perturb the latent along this many of its first principal directions, which `hardray train-autoencoder` fits
    and keeps beside the weights; unset: perturb every latent value on its own."""
    noise_channels: PositiveInt = 4
    """Normal noise values per latent cell or direction; the perturbation is computed from them and the latent."""
    hidden_dim: PositiveInt = 64
    """Channels of the perturbation network."""
    init_spread: PositiveFloat = 0.5
    """Standard deviation of the perturbation before the tanh, at the start."""
    finetune_lr: PositiveFloat | None = None
    """Learning rate of the autoencoder; unset: the autoencoder is frozen."""

    @model_validator(mode="after")
    def _only_a_difference_is_bounded(self) -> VaeAugmentor:
        if self.max_change is not None and not self.residual:
            raise ValueError(
                "max_change bounds the difference of two decodings, which residual=false does not add; leave it unset, "
                "or set residual=true"
            )
        return self


SequencePart = Annotated[
    AffineAugmentor
    | RandomAffineAugmentor
    | LearnedPolicyAugmentor
    | RandomPolicyAugmentor
    | FlipAugmentor
    | CropFlipAugmentor
    | CutoutAugmentor
    | MixupAugmentor
    | CutmixAugmentor
    | AutoAugmentor
    | RandAugmentor
    | TrivialAugmentor
    | AdversarialAugmentor
    | GeneratedAugmentor
    | MixAugmentor
    | VaeAugmentor,
    Field(discriminator="kind"),
]


class SequenceAugmentor(Config):
    """Several augmentors, learned or fixed, applied one after the other."""

    kind: Literal["sequence"] = "sequence"
    strength: Fraction = 1.0
    """Factor of the strength of every part."""
    augmentors: Annotated[tuple[SequencePart, ...], Field(min_length=1)]
    """The parts, in the order of their application."""


class PickAugmentor(Config):
    """CutMixPick (arXiv 2012.02909), with any augmentor: draw several views of the batch, keep the best images."""

    kind: Literal["pick"] = "pick"
    strength: Fraction = 1.0
    """Factor of the strength of the augmentor."""
    augmentor: Annotated[SequencePart | SequenceAugmentor, Field(discriminator="kind")] = CutmixAugmentor()
    """The augmentor that draws the candidates."""
    pool: Annotated[int, Field(ge=2, le=16)] = 2
    """Views to draw; of pool x batch candidates, one batch is kept."""
    score: Literal["kl", "teacher_entropy", "student_entropy"] = "teacher_entropy"
    """The candidates with the largest score are kept."""
    temperature: Temperature = 4.0
    """Temperature of `kl`; the entropies are taken at temperature 1."""


AugmentorConfig = Annotated[
    IdentityAugmentor | SequencePart | SequenceAugmentor | PickAugmentor, Field(discriminator="kind")
]


def is_learned(config: AugmentorConfig) -> bool:
    """Whether the augmentor, or a part of it, is trained against the student."""
    return any(isinstance(part, LearnedAugmentor) for part in parts_of(config))


def parts_of(config: AugmentorConfig) -> Iterator[AugmentorConfig]:
    """The augmentor itself, or the parts of a combination, in order."""
    match config:
        case SequenceAugmentor():
            for part in config.augmentors:
                yield from parts_of(part)
        case PickAugmentor():
            yield from parts_of(config.augmentor)
        case _:
            yield config


def has_prior(config: AugmentorConfig) -> bool:
    """Whether the augmentor, or a part of it, begins with the draws of its prior."""
    return any(isinstance(part, LearnedPolicyAugmentor) for part in parts_of(config))


def by_prior(config: AugmentorConfig) -> AugmentorConfig:
    """The same augmentor with the prior of HARD-Policy in the place of what is learned."""
    match config:
        case LearnedPolicyAugmentor():
            return RandomPolicyAugmentor(**{name: getattr(config, name) for name in PolicyOperations.model_fields})
        case SequenceAugmentor():
            return config.model_copy(update={"augmentors": tuple(by_prior(part) for part in config.augmentors)})
        case PickAugmentor():
            return config.model_copy(update={"augmentor": by_prior(config.augmentor)})
        case _:
            return config
