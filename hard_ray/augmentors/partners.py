"""Partners and shares for augmentors that mix images."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def partners(noise: Float[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """A permutation of the batch without a fixed point, as a function of one noise value per image.

    The images form a ring, in the order of their noise, and each is paired with the next. A single image is its
    own partner.
    """
    order = noise.argsort(stable=True)
    found = torch.empty_like(order)
    found[order] = order.roll(-1)
    return found


def shares(own: Float[Tensor, " batch"], partner: Int[Tensor, " batch"]) -> Float[Tensor, "batch batch"]:
    """Matrix of shares: in row i, `own[i]` for image i and the rest for its partner; differentiable in `own`."""
    count = len(own)
    is_partner = torch.zeros(count, count, dtype=own.dtype, device=own.device)
    is_partner[torch.arange(count, device=own.device), partner] = 1.0
    return own.diag() + (1.0 - own)[:, None] * is_partner


def beta(draws: Float[Tensor, " batch"], alpha: float) -> Float[Tensor, " batch"]:
    """Draws from Beta(alpha, alpha): its inverse distribution function at uniform `draws`."""
    if alpha == 1.0:
        return draws
    from scipy.special import betaincinv

    values = betaincinv(alpha, alpha, draws.double().cpu().numpy())
    return torch.from_numpy(values).to(draws)
