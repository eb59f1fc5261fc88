"""The principal directions of an autoencoder's latents, which are fitted once to encoded images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hard_ray.errors import ModelError

DIRECTIONS_FILE = "directions.safetensors"
COUNT = 64
"""Directions that are kept."""
IMAGES = 1024
"""Images that directions are fitted to: the singular values of a matrix with a row for each are computed."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The mean of the latents of images of one size, and the directions in which they vary most."""

    mean: Float[Tensor, "latent height width"]
    directions: Float[Tensor, "directions latent height width"]
    """Orthogonal, each as long as the latents' standard deviation along it, the longest first."""

    def save(self, path: Path) -> None:
        """Write both tensors to a file in safetensors."""
        save_file({"mean": self.mean.contiguous(), "directions": self.directions.contiguous()}, path)

    @classmethod
    def load(cls, path: Path) -> Principal:
        """Read a file that `save` wrote; raises ModelError if it is of another kind."""
        try:
            stored = load_file(path)
            found = cls(stored["mean"].float(), stored["directions"].float())
        except (OSError, KeyError, SafetensorError) as error:
            raise ModelError(f"{path}: cannot be read ({type(error).__name__}: {error}); {_REMEDY}") from None
        shapes = tuple(found.mean.shape), tuple(found.directions.shape)
        if len(shapes[0]) != 3 or shapes[1][1:] != shapes[0]:
            raise ModelError(
                f"{path}: want `directions` of one more axis than `mean`, got {shapes[1]} and {shapes[0]}; {_REMEDY}"
            )
        return found


_REMEDY = "remove it, or train the autoencoder again with `hardray train-autoencoder`"


def fit_principal(latents: Float[Tensor, "images latent height width"], *, count: int = COUNT) -> Principal:
    r"""The mean and the first `count` principal directions: d_k = sigma_k v_k.

    .. math:: Z - \bar z = U S V^\top, \qquad \sigma_k = S_k / \sqrt n

    Directions along which the n latents do not vary are left out: with few images there are such.
    """
    mean = latents.double().mean(dim=0)
    centred = (latents.double() - mean).flatten(1)
    _, lengths, directions = torch.linalg.svd(centred, full_matrices=False)
    deviations = lengths / len(latents) ** 0.5
    kept = min(count, int((deviations > 1e-6 * deviations[0]).sum()))
    scaled = deviations[:kept, None] * directions[:kept]
    return Principal(mean.float(), scaled.unflatten(1, mean.shape).float())
