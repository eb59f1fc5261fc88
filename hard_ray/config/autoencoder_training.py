"""Settings of `train-autoencoder`: a small autoencoder, trained on the user's images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from hard_ray.config.base import Config, Fraction, Seed, Weight
from hard_ray.config.data import DataConfig, DigitsData, refuse_mix, refuse_splits
from hard_ray.config.loader import from_options
from hard_ray.config.networks import TeacherConfig
from hard_ray.config.run import RunConfig


class _Training(Config):
    steps: PositiveInt = 2000
    """Length of the training in updates."""
    batch_size: PositiveInt = 16
    """Images per update."""
    lr: PositiveFloat = 6e-3
    """Peak learning rate of AdamW: a linear warm-up, then a cosine to zero."""
    warmup: PositiveInt = 50
    """Updates of linear warm-up."""
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=6)] = (16, 32, 32)
    """Channels of each level; levels after the first halve the side: with three levels, a cell is 4 pixels wide."""
    layers: PositiveInt = 1
    """Residual blocks per level of the encoder; the decoder has one more per level."""
    latent_channels: PositiveInt = 4
    """Channels of the latent."""
    perceptual: Weight = 0.0
    """Weight of the distance between the teacher's features of an image and of its reconstruction, against the squared
    error per pixel; 0: the teacher is not used."""


class KlTraining(_Training):
    """An `AutoencoderKL`: continuous latents, kept close to the standard normal distribution."""

    kind: Literal["kl"] = "kl"
    kl_weight: Weight = 1e-5
    """Weight of the KL divergence from the standard normal per latent value, against the squared error per pixel."""


class VqTraining(_Training):
    """A `VQModel`: every cell of the latent is one code of a codebook."""

    kind: Literal["vq"] = "vq"
    latent_channels: PositiveInt = 16
    codes: Annotated[int, Field(ge=2)] = 512
    """Number of codes in the codebook."""
    commitment: Weight = 0.02
    """Weight of the distance between a cell and its code."""
    decay: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.98
    """Decay of the moving averages from which codes are computed."""
    dead_below: Fraction = 0.1
    """A code used less often than this share of the mean use restarts at a cell of the batch."""


class PatchTraining(Config):
    """A linear autoencoder: the principal components of patches, fitted in seconds, with or without a codebook."""

    kind: Literal["patch"] = "patch"
    factor: PositiveInt = 4
    """Pixels along each side of a patch; a patch is one cell of the latent."""
    latent_channels: PositiveInt = 16
    """Components of a patch that are kept."""
    codes: Annotated[int, Field(ge=2)] | None = None
    """Number of codes, fitted by k-means, for DAD; unset: the latent is continuous, for HARD-VAE."""
    images: PositiveInt = 4096
    """Training images that it is fitted to, without their views."""


NetworkTraining = KlTraining | VqTraining
AutoencoderTraining = Annotated[NetworkTraining | PatchTraining, Field(discriminator="kind")]


class AutoencoderRun(Config):
    """One training of an autoencoder: every setting that its weights depend on."""

    data: DataConfig = DigitsData()
    training: AutoencoderTraining = KlTraining()
    teacher: TeacherConfig | None = None
    """The network of `training.perceptual`."""
    seed: Seed = 0
    """Seed of the initial weights, the order of images, their views and noise."""
    threads: PositiveInt | None = None
    """Threads of the kernels; unset: all cores of the machine but one."""
    amp_dtype: Literal["float32", "bfloat16"] | None = None
    """Autocast precision; unset: bfloat16 where the hardware has it, else float32. In float16 a loss would have to be
    scaled, which this training does not do."""
    channels_last: bool | None = None
    """Channels-last memory layout; unset: on with bfloat16."""

    @model_validator(mode="after")
    def _is_of_single_images(self) -> AutoencoderRun:
        refuse_splits(self.data)
        refuse_mix(self.data)
        return self

    @model_validator(mode="after")
    def _components_are_no_more_than_values(self) -> AutoencoderRun:
        training = self.training
        if isinstance(training, PatchTraining):
            values = self.data.in_chans * training.factor**2
            if training.latent_channels > values:
                raise ValueError(
                    f"latent_channels={training.latent_channels} exceeds the {values} values of a patch of "
                    f"{training.factor} x {training.factor} pixels; ask for fewer, or for larger patches by factor"
                )
        return self

    @model_validator(mode="after")
    def _features_are_of_a_trained_network(self) -> AutoencoderRun:
        weight = 0.0 if isinstance(self.training, PatchTraining) else self.training.perceptual
        if weight > 0 and (self.teacher is None or not self.teacher.has_weights):
            raise ValueError(
                f"perceptual={weight:g} compares features of a trained network, and the teacher has "
                "no weights; give teacher.checkpoint=FILE or teacher.model=local-dir:FOLDER, or leave perceptual at 0"
            )
        return self


def autoencoder_run(config: RunConfig, training: dict[str, Any]) -> AutoencoderRun:
    """The settings of `train-autoencoder`, with `data`, `seed` and `runtime` of a run; ConfigError: every mistake."""
    values: dict[str, Any] = {
        "data": config.data.model_dump(mode="json"),
        "training": training,
        "teacher": config.teacher.model_dump(mode="json") if training.get("perceptual") else None,
        "seed": config.seed,
        "threads": config.runtime.threads,
        "amp_dtype": config.runtime.amp_dtype,
        "channels_last": config.runtime.channels_last,
    }
    return from_options(AutoencoderRun, values)
