"""Load the autoencoder that a configuration names."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from hard_ray.config.autoencoder import HUB, LOCAL, AutoencoderConfig
from hard_ray.errors import ModelError, readable
from hard_ray.files import read_text
from hard_ray.networks.autoencoders.base import LATENTS_FILE, Autoencoder
from hard_ray.networks.autoencoders.principal import DIRECTIONS_FILE, Principal
from hard_ray.storage.fetched import local_model


def build_autoencoder(config: AutoencoderConfig, in_chans: int) -> Autoencoder:
    """Load a pretrained autoencoder in evaluation mode; raises ModelError if it is unreadable or does not fit."""
    from hard_ray.networks.autoencoders.patches import PATCHES_FILE, load_patches
    from hard_ray.networks.autoencoders.taef2 import load_taef2, taef2_files

    if config.model.startswith(HUB):
        where = _download(config)
    else:
        where = Path(local_model(config.model).removeprefix(LOCAL)).expanduser()
    if config.subfolder is not None:
        where /= config.subfolder
    files = taef2_files(where)
    if files is not None:
        autoencoder: Autoencoder = load_taef2(*files, in_chans=in_chans)
    elif (where / PATCHES_FILE).is_file():
        autoencoder = load_patches(where / PATCHES_FILE, in_chans=in_chans)
    else:
        _check_layout(where)
        from hard_ray.networks.autoencoders.diffusers_models import load_diffusers

        autoencoder = load_diffusers(where, in_chans=in_chans)
    autoencoder.scale = config.scale
    _read_latents(autoencoder, where / LATENTS_FILE)
    if (where / DIRECTIONS_FILE).is_file():
        autoencoder.principal = Principal.load(where / DIRECTIONS_FILE)
    return autoencoder.eval()


def _download(config: AutoencoderConfig) -> Path:
    """Download the needed files of a hub repository and return their folder in the local cache."""
    from huggingface_hub import snapshot_download

    name = config.model.removeprefix(HUB)
    below = f"{config.subfolder}/" if config.subfolder else ""
    wanted = (
        "config.json",
        "diffusion_pytorch_model.safetensors",
        LATENTS_FILE,
        DIRECTIONS_FILE,
        "taef2_*coder.safetensors",
    )
    try:
        return Path(snapshot_download(name, allow_patterns=[f"{below}{file}" for file in wanted]))
    except Exception as error:  # the hub's own errors, httpx's and the system's
        raise ModelError(
            f"autoencoder.model {config.model} cannot be fetched ({readable(error)}); "
            "check the name and the network, or give the path of a local folder"
        ) from None


def _check_layout(where: Path) -> None:
    if (where / "config.json").is_file():
        return
    finding = "it has no config.json" if where.is_dir() else "there is no such folder"
    raise ModelError(
        f"autoencoder.model {where}: {finding}; want a folder in diffusers' layout (config.json and "
        "diffusion_pytorch_model.safetensors), such as `hardray train-autoencoder` writes, one with taef2_encoder and "
        "taef2_decoder (.safetensors or .pth), or hf-hub:org/name; a model within another needs autoencoder.subfolder"
    )


def _read_latents(autoencoder: Autoencoder, path: Path) -> None:
    """Set the latents' deviations from the file beside the weights, if there is one."""
    if not path.is_file():
        return
    try:
        std = torch.tensor(json.loads(read_text(path))["std"], dtype=torch.float32)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: cannot be read ({type(error).__name__}: {error}); {_LATENTS_REMEDY}") from None
    count = autoencoder.latent_channels
    if std.shape != (count,) or not bool((torch.isfinite(std) & (std >= 0)).all()):
        raise ModelError(f"{path}: want {count} finite numbers as `std`, got {std.tolist()}; {_LATENTS_REMEDY}")
    autoencoder.set_latent_std(std)


_LATENTS_REMEDY = "fix it, or remove it: then no channel is scaled"
