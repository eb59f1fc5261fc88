"""Settings of `generate`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import PositiveInt

from hard_ray.config.augmentor import AttackConfig
from hard_ray.config.autoencoder import AutoencoderConfig
from hard_ray.config.loader import from_options
from hard_ray.errors import ConfigError


class GenerationConfig(AttackConfig):
    """Discrete adversarial images, made before training (DAD, arXiv 2311.01441); the defaults are the paper's."""

    method: Literal["dad"] = "dad"
    autoencoder: AutoencoderConfig
    """Autoencoder with a codebook, which discretises the image before and after the ascent."""
    split: Literal["train", "val", "test"] = "train"
    """Split whose images are attacked."""
    shard_size: PositiveInt = 1000
    """Images per file; each file is made and verified as a whole."""
    batch_size: PositiveInt = 64
    """Images that are attacked together; a batch never spans two files."""


def generation_settings(options: dict[str, Any]) -> GenerationConfig:
    """Settings from the options of `generate`; `autoencoder` is a folder or `hf-hub:org/name`."""
    if not options.get("autoencoder"):
        raise ConfigError(
            [
                "autoencoder: is required, dad discretises images with it; make one of your images with "
                "`hardray train-autoencoder --kind vq --output FOLDER` and give --autoencoder FOLDER"
            ],
            "the options",
        )
    coder = options["autoencoder"]
    values = {**options, "autoencoder": {"model": coder} if isinstance(coder, str) else coder}
    return from_options(GenerationConfig, values)
