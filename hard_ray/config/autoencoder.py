"""The name of a pretrained autoencoder."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from hard_ray.config.base import Config
from hard_ray.config.places import checked_model

HUB, LOCAL = "hf-hub:", "local-dir:"


def _with_prefix(model: str) -> str:
    """Write a bare path as `local-dir:PATH`, so that `absolute` recognises it."""
    return checked_model(model if model.startswith((HUB, LOCAL)) else f"{LOCAL}{model}")


class AutoencoderConfig(Config):
    """A pretrained autoencoder."""

    model: Annotated[str, AfterValidator(_with_prefix)]
    """`hf-hub:org/name`, or a folder in diffusers' layout or with `taef2_encoder` and `taef2_decoder`, or its URL."""
    subfolder: str | None = None
    """Folder within `model`, for example `vae`."""
    scale: Annotated[int, Field(ge=1, le=8)] = 1
    """Enlarge images this many times before encoding, and reduce the decoded ones again: a model of large images
    reconstructs small ones better so."""
