"""A linear autoencoder: the principal components of patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hard_ray.errors import ModelError
from hard_ray.networks.autoencoders.base import Autoencoder

PATCHES_FILE = "patches.safetensors"


class PatchAutoencoder(Autoencoder):
    r"""The latent of a patch is its coordinates along orthonormal components of patches.

    .. math:: z = W (p - \bar p), \qquad D(z) = \bar p + W^\top z

    Of all linear maps with as many latent channels, the principal components lose least. Small images are nearly a
    linear function of few values: neighbouring pixels resemble each other, and JPEG halves the resolution of colour.
    With a codebook the reconstruction is classical vector quantisation of patches.
    """

    def __init__(
        self,
        mean: Float[Tensor, "channels side side"],
        components: Float[Tensor, "latent channels side side"],
        std: Float[Tensor, " latent"],
        codes: Float[Tensor, "codes latent"] | None = None,
        *,
        in_chans: int,
    ) -> None:
        """`std` is the deviation of each coordinate on data; without `codes`, latents are continuous."""
        latent, channels, side, _ = components.shape
        super().__init__(factor=side, latent_channels=latent, channels=channels, in_chans=in_chans)
        self.mean = nn.Parameter(mean.contiguous())
        self.components = nn.Parameter(components.contiguous())  # the layout decides the bits of a convolution
        self.codes = None if codes is None else nn.Parameter(codes)
        self.set_latent_std(std)

    @property
    def codebook(self) -> Tensor | None:
        """The codes, or None."""
        return self.codes

    def save(self, folder: Path) -> None:
        """Write the components, deviations and codes to one file."""
        save_file(self.state_dict(), folder / PATCHES_FILE)

    def _encode(self, images: Tensor) -> Tensor:
        offset = -(self.components * self.mean).sum(dim=(1, 2, 3))
        return F.conv2d(images, self.components, offset, stride=self.factor)

    def _decode(self, latent: Tensor) -> Tensor:
        patches = F.conv_transpose2d(latent, self.components, stride=self.factor)
        return patches + self.mean.repeat(1, latent.shape[-2], latent.shape[-1])

    def _architecture(self) -> dict[str, Any]:
        return {"factor": self.factor, "latent_channels": self.latent_channels}


def load_patches(path: Path, *, in_chans: int) -> PatchAutoencoder:
    """Load what `save` wrote; raises ModelError if the file is of another kind."""
    try:
        stored = load_file(path)
        mean, components, std = (stored[name] for name in ("mean", "components", "latent_std"))
    except (OSError, KeyError, SafetensorError) as error:
        raise ModelError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); want the file that "
            "`hardray train-autoencoder --kind patch` writes"
        ) from None
    return PatchAutoencoder(mean, components, std, stored.get("codes"), in_chans=in_chans)
