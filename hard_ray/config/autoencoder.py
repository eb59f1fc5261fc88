"""Which autoencoder."""

from __future__ import annotations

from hard_ray.config.base import Config


class AutoencoderConfig(Config):
    """A pretrained autoencoder."""

    model: str
    """Where it is."""
