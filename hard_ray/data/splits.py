"""Splits of labelled images: the validation split, stratified by a seed of its own."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hard_ray.data.index import Rows
from hard_ray.maths.noise import permutation


def split_pool(labels: NDArray[np.int64], *, test: float, val: float, seed: int) -> dict[str, Rows]:
    """Split one pool of images in three: the share `test` of all, the share `val` of the others, and the rest."""
    everything: Rows = np.arange(len(labels))
    rest, test_rows = split_off(everything, labels, fraction=test, seed=seed, purpose="test split")
    train, val_rows = split_off(rest, labels, fraction=val, seed=seed, purpose="val split")
    return {"train": train, "val": val_rows, "test": test_rows}


def split_off(rows: Rows, labels: NDArray[np.int64], *, fraction: float, seed: int, purpose: str) -> tuple[Rows, Rows]:
    """Stratified: `fraction` of each class goes to the second part, and the rest stays in the first.

    Both keep the order of `rows`. Shares are rounded per class so that the second part has
    round(fraction * len(rows)) rows.
    """
    order = rows[permutation(purpose, len(rows), seed=seed, epoch=0)]
    wanted = _shares(labels[rows], round(fraction * len(rows)))
    taken = np.concatenate([order[:0], *(order[labels[order] == label][:count] for label, count in wanted.items())])
    is_taken = np.isin(rows, taken)
    return rows[~is_taken], rows[is_taken]


def _shares(labels: NDArray[np.int64], total: int) -> dict[int, int]:
    """How many of each label, in proportion, adding up to `total`: largest remainders win."""
    values, counts = np.unique(labels, return_counts=True)
    exact = counts * (total / max(1, len(labels)))
    shares = np.floor(exact).astype(int)
    missing = total - int(shares.sum())
    for position in np.argsort(shares - exact, kind="stable")[:missing]:
        shares[position] += 1
    return dict(zip(values.tolist(), shares.tolist(), strict=True))


def with_validation(
    splits: Mapping[str, Rows], labels: NDArray[np.int64], *, fraction: float, seed: int
) -> dict[str, Rows]:
    """The splits, with a validation split taken from the training split where there is none."""
    if "val" in splits:
        return dict(splits)
    train, val = split_off(splits["train"], labels, fraction=fraction, seed=seed, purpose="val split")
    return {**splits, "train": train, "val": val}
