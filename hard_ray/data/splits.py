"""Stratified splits of labelled images, by a seed of their own."""

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
    """Divide rows in two, stratified: the second part takes `fraction` of each class, the first part the rest.

    Both keep the order of `rows`. The counts per class are rounded so that the second part has
    round(fraction * len(rows)) rows.
    """
    permuted = permutation(purpose, len(rows), seed=seed, epoch=0)
    order = rows[permuted]
    wanted = _shares(labels[rows], round(fraction * len(rows)))
    # rows of each class, one class after the other, each in the permuted order; of each the first few are taken
    of_class = labels[order]
    by_class = np.argsort(of_class, kind="stable")
    first = np.searchsorted(of_class[by_class], list(wanted))
    places = [by_class[start : start + count] for start, count in zip(first, wanted.values(), strict=True)]
    is_taken = np.zeros(len(rows), dtype=bool)
    is_taken[permuted[np.concatenate([by_class[:0], *places])]] = True
    return rows[~is_taken], rows[is_taken]


def _shares(labels: NDArray[np.int64], total: int) -> dict[int, int]:
    """How many rows to take of each label: in proportion, adding up to `total`, by the largest remainders."""
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
    """The splits; if there is no validation split, it is taken from the training split."""
    if "val" in splits:
        return dict(splits)
    train, val = split_off(splits["train"], labels, fraction=fraction, seed=seed, purpose="val split")
    return {**splits, "train": train, "val": val}
