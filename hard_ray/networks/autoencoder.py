"""Autoencoders with one interface: images in [0, 1] go in and come out, whatever the model wants."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hard_ray.config.autoencoder import HUB, LOCAL, AutoencoderConfig
from hard_ray.errors import ModelError
from hard_ray.networks.checkpoints import add_weights

LATENTS_FILE = "latents.json"
_SMALLEST_STD = 1e-3
"""Of the widest channel's: what divides by a channel's deviation must bear one that hardly varies."""


class Autoencoder(nn.Module):
    """Encodes images into latents and back; scales, pads and mixes channels by itself."""

    factor: int
    """Pixels of an image's side for each cell of the latent's."""
    latent_channels: int
    latent_std: Tensor
    """Standard deviation of each latent channel on data, shape (latent_channels,); ones until it is known."""

    def __init__(self, *, factor: int, latent_channels: int, channels: int, in_chans: int) -> None:
        """`channels` is what the model takes, `in_chans` what the data has.

        Raises:
            ModelError: the model cannot see such images.
        """
        super().__init__()
        if channels != in_chans and (channels, in_chans) != (3, 1):
            raise ModelError(
                f"the autoencoder takes images of {channels} channel{'s' * (channels > 1)}, the data has {in_chans}; "
                f"set data.in_chans={channels}, or use an autoencoder of {in_chans}"
            )
        self.factor, self.latent_channels = factor, latent_channels
        self.is_mixed = channels != in_chans
        self.register_buffer("latent_std", torch.ones(latent_channels))

    def encode(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch latent latent_height latent_width"]:
        """The latent's mean, of ceil(side / factor) cells a side."""
        return self._encode(self.prepare(images))

    def decode(
        self, latent: Float[Tensor, "batch latent latent_height latent_width"], size: tuple[int, int]
    ) -> Float[Tensor, "batch channels height width"]:
        """Images of height and width `size`, about in [0, 1]: nothing is cut off, so that gradients live."""
        images = self._decode(latent)[..., : size[0], : size[1]]
        return images.mean(dim=1, keepdim=True) if self.is_mixed else images

    def quantise(self, latent: Tensor) -> Tensor:
        """The nearest latent that has a code; without a codebook the latent itself."""
        return latent

    def reconstruct(self, images: Tensor) -> Tensor:
        """Encode, quantise and decode."""
        size = (images.shape[-2], images.shape[-1])
        return self.decode(self.quantise(self.encode(images)), size)

    def prepare(self, images: Tensor) -> Tensor:
        """The images as the model wants them, but for its scale.

        Sides are filled up, below and to the right, to multiples of `factor`: by reflection, or by the last row
        and column where there is too little to reflect.
        """
        height, width = images.shape[-2:]
        below, right = -height % self.factor, -width % self.factor
        if below or right:
            mode = "reflect" if below < height and right < width else "replicate"
            images = F.pad(images, (0, right, 0, below), mode=mode)
        return images.expand(-1, 3, -1, -1) if self.is_mixed else images

    def identity(self) -> str:
        """SHA-256 over the architecture and every weight."""
        digest = hashlib.sha256(repr((type(self).__name__, sorted(self._architecture().items()))).encode())
        add_weights(digest, self)
        return digest.hexdigest()

    def _architecture(self) -> dict[str, Any]:
        """What decides an image beside the weights."""
        return {"factor": self.factor}

    @torch.no_grad()
    def calibrate(self, images: Float[Tensor, "batch channels height width"]) -> None:
        """Measure `latent_std` on images."""
        self.set_latent_std(self.encode(images).transpose(0, 1).flatten(1).float().std(dim=1))

    @torch.no_grad()
    def set_latent_std(self, std: Float[Tensor, " latent"]) -> None:
        """Take over a measured deviation of each channel."""
        floor = _SMALLEST_STD * float(std.max())
        self.latent_std.copy_(std.clamp_min(floor if floor > 0 else 1.0))

    def _encode(self, images: Tensor) -> Tensor:
        """Latents of prepared images."""
        raise NotImplementedError

    def _decode(self, latent: Tensor) -> Tensor:
        """Images in [0, 1] of the latent's size times `factor`."""
        raise NotImplementedError


def build_autoencoder(config: AutoencoderConfig, in_chans: int) -> Autoencoder:
    """A pretrained autoencoder, in evaluation mode, for images of `in_chans` channels.

    Raises:
        ModelError: there is none, it cannot be read, or it does not fit the images.
    """
    from hard_ray.networks.taef2 import load_taef2, taef2_files

    where = _download(config) if config.model.startswith(HUB) else Path(config.model.removeprefix(LOCAL)).expanduser()
    if config.subfolder is not None:
        where /= config.subfolder
    files = taef2_files(where)
    if files is not None:
        autoencoder: Autoencoder = load_taef2(*files, in_chans=in_chans)
    else:
        _check_layout(where)
        from hard_ray.networks.diffusers_autoencoders import load_diffusers

        autoencoder = load_diffusers(where, in_chans=in_chans)
    _read_latents(autoencoder, where / LATENTS_FILE)
    return autoencoder.eval()


def _download(config: AutoencoderConfig) -> Path:
    """The folder of the local cache with what is needed of a hub repository."""
    from huggingface_hub import snapshot_download

    name = config.model.removeprefix(HUB)
    below = f"{config.subfolder}/" if config.subfolder else ""
    wanted = ("config.json", "diffusion_pytorch_model.safetensors", LATENTS_FILE, "taef2_*coder.safetensors")
    try:
        return Path(snapshot_download(name, allow_patterns=[f"{below}{file}" for file in wanted]))
    except Exception as error:  # the hub raises its own, httpx's and the system's
        raise ModelError(
            f"autoencoder.model {config.model} cannot be fetched ({type(error).__name__}: {_first_line(error)}); "
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
    """Take over the latents' deviations from the file beside the weights, where there is one."""
    if not path.is_file():
        return
    try:
        std = torch.tensor(json.loads(path.read_text(encoding="utf-8"))["std"], dtype=torch.float32)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: cannot be read ({type(error).__name__}: {error}); {_LATENTS_REMEDY}") from None
    count = autoencoder.latent_channels
    if std.shape != (count,) or not bool((torch.isfinite(std) & (std >= 0)).all()):
        raise ModelError(f"{path}: want {count} finite numbers as `std`, got {std.tolist()}; {_LATENTS_REMEDY}")
    autoencoder.set_latent_std(std)


_LATENTS_REMEDY = "mend it, or remove it: then no channel is scaled"


def write_latents(path: Path, *, mean: Tensor, std: Tensor) -> dict[str, Any]:
    """Write what is known of the latents on data, for `build_autoencoder` to find."""
    values = {"mean": mean.tolist(), "std": std.tolist()}
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return values


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or "no reason given").splitlines()[0]
