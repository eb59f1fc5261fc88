"""How a generated set is made."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import PositiveInt

from hard_ray.config.augmentor import AttackConfig
from hard_ray.config.autoencoder import AutoencoderConfig
from hard_ray.config.loader import of_options
from hard_ray.errors import ConfigError


class GenerationConfig(AttackConfig):
    """Discrete adversarial images, made before training (DAD, arXiv 2311.01441); the defaults are the paper's."""

    method: Literal["dad"] = "dad"
    autoencoder: AutoencoderConfig
    """Discretises the image before and after the ascent: one with a codebook."""
    split: Literal["train", "val", "test"] = "train"
    """Whose images are attacked."""
    shard_size: PositiveInt = 1000
    """Images per file; a file is what is made, checked and made again."""
    batch_size: PositiveInt = 64
    """Images that are attacked together; no batch has images of two shards."""


def generation_settings(options: dict[str, Any]) -> GenerationConfig:
    """The settings that options describe; `autoencoder` is a folder or `hf-hub:org/name`.

    Raises:
        ConfigError: every mistake in the options, in one message.
    """
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
    return of_options(GenerationConfig, values)
