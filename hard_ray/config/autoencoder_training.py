"""Settings of `train-autoencoder`: a small autoencoder, trained on the user's images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from hard_ray.config.base import Config, Fraction, Seed, Weight
from hard_ray.config.data import DataConfig, DigitsData, refuse_mix, refuse_splits
from hard_ray.config.loader import from_options
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


AutoencoderTraining = Annotated[KlTraining | VqTraining, Field(discriminator="kind")]


class AutoencoderRun(Config):
    """One training of an autoencoder: every setting that its weights depend on."""

    data: DataConfig = DigitsData()
    training: AutoencoderTraining = KlTraining()
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


def autoencoder_run(config: RunConfig, training: dict[str, Any]) -> AutoencoderRun:
    """The settings of `train-autoencoder`, with `data`, `seed` and `runtime` of a run; ConfigError: every mistake."""
    values: dict[str, Any] = {
        "data": config.data.model_dump(mode="json"),
        "training": training,
        "seed": config.seed,
        "threads": config.runtime.threads,
        "amp_dtype": config.runtime.amp_dtype,
        "channels_last": config.runtime.channels_last,
    }
    return from_options(AutoencoderRun, values)
