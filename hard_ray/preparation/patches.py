"""Fit a linear autoencoder to patches of images."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hard_ray.config.autoencoder_training import PatchTraining
from hard_ray.errors import DataError
from hard_ray.maths.noise import seed_of
from hard_ray.networks.autoencoders.patches import PatchAutoencoder
from hard_ray.networks.autoencoders.principal import fit_principal

PATCHES = 2**16
"""Limit of the patches that components and codes are fitted to."""


def fit_patches(
    images: Float[Tensor, "batch channels height width"], config: PatchTraining, *, seed: int
) -> PatchAutoencoder:
    """The principal components of the images' patches, and a codebook of their coordinates by k-means.

    Raises DataError if there are fewer patches than codes.
    """
    channels, side = images.shape[1], config.factor
    # 1. patches side by side, without overlap; a random choice of them
    patches = F.unfold(images, side, stride=side).movedim(1, -1).flatten(0, 1).unflatten(1, (channels, side, side))
    generator = torch.Generator().manual_seed(seed_of("patches", seed))
    patches = patches[torch.randperm(len(patches), generator=generator)[:PATCHES]]
    # 2. orthonormal components, and the deviation of the coordinate along each
    found = fit_principal(patches, count=config.latent_channels)
    std = found.directions.flatten(1).norm(dim=1)
    components = found.directions / std.view(-1, 1, 1, 1)
    codes = None
    if config.codes is not None:
        # 3. codes in these coordinates, where distances are those of the patches
        coordinates = (patches - found.mean).flatten(1) @ components.flatten(1).T
        codes = _k_means(coordinates, config.codes, seed=seed)
    return PatchAutoencoder(found.mean, components, std, codes, in_chans=channels)


def _k_means(rows: Float[Tensor, "rows values"], count: int, *, seed: int) -> Float[Tensor, "count values"]:
    from sklearn.cluster import MiniBatchKMeans

    if len(rows) < count:
        raise DataError(f"the images have {len(rows)} patches, fewer than the {count} codes; ask for fewer codes")
    drawn = seed_of("k-means", seed) % 2**32
    # an odd codebook of rare patches is wanted here: no code is moved for being used little
    means = MiniBatchKMeans(count, random_state=drawn, n_init=1, batch_size=4 * count, reassignment_ratio=0.0)
    means.fit(rows.numpy())
    return torch.from_numpy(np.asarray(means.cluster_centers_, dtype=np.float32))
