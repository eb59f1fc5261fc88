"""Classification by the nearest neighbours in feature space."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

CHUNK = 1024
"""Images that are compared with all others at once."""


def neighbour_votes(
    features: Float[Tensor, "images width"],
    known: Float[Tensor, "known width"],
    labels: Int[Tensor, " known"],
    *,
    classes: int,
    k: int,
    temperature: float,
) -> Float[Tensor, "images classes"]:
    r"""Votes of the k nearest known features for each class, by cosine similarity.

    .. math:: v_c(x) = \sum_{i \in N_k(x)} \exp(\cos(x, x_i) / \tau) \, [y_i = c]

    With fewer than k known features all of them vote.

    Source: Wu et al. 2018, arXiv:1805.01978, section 3.4, with :math:`\tau = 0.07`; k = 20 is that of Caron et al.
    2021 (DINO), arXiv:2104.14294, section 4.1. The maximum is taken out of the exponent, which changes no ratio.
    """
    known = F.normalize(known, dim=1)
    votes = []
    for part in features.split(CHUNK):
        similarity, nearest = (F.normalize(part, dim=1) @ known.T).topk(min(k, len(known)), dim=1)
        weight = ((similarity - similarity[:, :1]) / temperature).exp()
        votes.append(weight.new_zeros(len(part), classes).scatter_add(1, labels[nearest], weight))
    return torch.cat(votes)
