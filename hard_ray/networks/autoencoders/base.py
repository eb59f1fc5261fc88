"""The interface of autoencoders: images in [0, 1] go in and come out, whatever scale the model uses."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from hard_ray.errors import ModelError
from hard_ray.maths.resampling import resize
from hard_ray.networks.autoencoders.principal import Principal
from hard_ray.networks.precision import widen
from hard_ray.networks.weights import add_weights

LATENTS_FILE = "latents.json"
_ROWS_AT_ONCE = 2**14
"""Latent cells whose distances to all codes are computed at once."""
_SMALLEST_STD = 1e-3
"""Smallest deviation of a channel, relative to the largest: latents are divided by it."""


class Autoencoder(nn.Module):
    """Encodes images into latents and decodes them; scales, pads and converts channels itself."""

    factor: int
    """Pixels per cell of the latent, along each side, of the images that the model sees."""
    scale: int = 1
    """The model sees images whose sides are this many times longer."""
    principal: Principal | None = None
    """None: they are not known."""
    in_chans: int
    """Channels of the data's images."""
    latent_channels: int
    latent_std: Tensor
    """Standard deviation of each latent channel on data, shape (latent_channels,); ones if it is not known."""

    def __init__(self, *, factor: int, latent_channels: int, channels: int, in_chans: int) -> None:
        """`channels` are the model's, `in_chans` the data's; raises ModelError if the model cannot take the latter."""
        super().__init__()
        if channels != in_chans and (channels, in_chans) != (3, 1):
            raise ModelError(
                f"the autoencoder takes images of {channels} channel{'s' * (channels > 1)}, the data has {in_chans}; "
                f"set data.in_chans={channels}, or use an autoencoder of {in_chans}"
            )
        self.factor, self.in_chans, self.latent_channels = factor, in_chans, latent_channels
        self.is_mixed = channels != in_chans
        self.register_buffer("latent_std", torch.ones(latent_channels))

    def encode(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch latent latent_height latent_width"]:
        """The latents' mean, with `cells(side)` cells along each side."""
        return self._encode(self.prepare(images))

    def decode(
        self, latent: Float[Tensor, "batch latent latent_height latent_width"], size: tuple[int, int]
    ) -> Float[Tensor, "batch channels height width"]:
        """Images of height and width `size`, roughly in [0, 1]: they are not clamped, which would stop gradients."""
        images = self._decode(latent)[..., : self.scale * size[0], : self.scale * size[1]]
        if self.scale > 1:
            images = F.avg_pool2d(images, self.scale)
        return images.mean(dim=1, keepdim=True) if self.is_mixed else images

    def cells(self, side: int) -> int:
        """Cells of the latent along a side of `side` pixels."""
        return -(-self.scale * side // self.factor)

    @property
    def codebook(self) -> Float[Tensor, "codes latent"] | None:
        """Every latent that a cell can be quantised to; None: latents are continuous."""
        return None

    def quantise(self, latent: Tensor) -> Tensor:
        """The nearest code of each cell, exactly; without a codebook, the latent itself.

        The gradient passes straight through to `latent`.
        """
        if self.codebook is None:
            return latent
        codes = self.codebook.detach()[self.nearest(latent)].movedim(-1, 1)
        return codes + (latent - latent.detach())

    @torch.no_grad()
    def nearest(self, latent: Float[Tensor, "batch latent height width"]) -> Int[Tensor, "batch height width"]:
        """The number of the code nearest to each cell; distances are computed in float32 or wider."""
        assert self.codebook is not None
        cells, codes = widen(latent).movedim(1, -1), widen(self.codebook)
        length = codes.square().sum(dim=1)
        parts = cells.reshape(-1, codes.shape[1]).split(_ROWS_AT_ONCE)
        with torch.autocast(latent.device.type, enabled=False):
            numbers = [(length - 2 * part @ codes.T).argmin(dim=1) for part in parts]
        return torch.cat(numbers).view(cells.shape[:-1])

    def reconstruct(self, images: Tensor) -> Tensor:
        """Encode, quantise and decode."""
        size = (images.shape[-2], images.shape[-1])
        return self.decode(self.quantise(self.encode(images)), size)

    def prepare(self, images: Tensor) -> Tensor:
        """The images with the model's size and channels, padded but not yet scaled to its range.

        Sides are padded, at the bottom and right, to multiples of `factor`: by reflection, or by repeating the last
        row and column where the image is too small to reflect.
        """
        if self.scale > 1:
            enlarged = (self.scale * images.shape[-2], self.scale * images.shape[-1])
            images = resize(images, enlarged, mode="bicubic").clamp(0.0, 1.0)
        height, width = images.shape[-2:]
        below, right = -height % self.factor, -width % self.factor
        if below or right:
            mode = "reflect" if below < height and right < width else "replicate"
            images = F.pad(images, (0, right, 0, below), mode=mode)
        return images.expand(-1, 3, -1, -1) if self.is_mixed else images

    def identity(self) -> str:
        """SHA-256 over the architecture and every weight."""
        settings = self._architecture() | ({"scale": self.scale} if self.scale > 1 else {})
        digest = hashlib.sha256(repr((type(self).__name__, sorted(settings.items()))).encode())
        add_weights(digest, self)
        return digest.hexdigest()

    def _architecture(self) -> dict[str, Any]:
        """The settings that decide the output, besides the weights."""
        return {"factor": self.factor}

    @torch.no_grad()
    def set_latent_std(self, std: Float[Tensor, " latent"]) -> None:
        """Set the measured deviation of each channel, held away from zero."""
        floor = _SMALLEST_STD * float(std.max())
        self.latent_std.copy_(std.clamp_min(floor if floor > 0 else 1.0))

    def _encode(self, images: Tensor) -> Tensor:
        """Latents of prepared images."""
        raise NotImplementedError

    def _decode(self, latent: Tensor) -> Tensor:
        """Images in [0, 1] of the latent's size times `factor`."""
        raise NotImplementedError


def write_latents(path: Path, *, mean: Tensor, std: Tensor) -> dict[str, Any]:
    """Write the latents' mean and deviation on data, for `build_autoencoder` to read."""
    values = {"mean": mean.tolist(), "std": std.tolist()}
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return values
