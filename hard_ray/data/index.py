"""What is where: labels, classes and splits of a data set, without its pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hard_ray.data.readers import Reader
from hard_ray.errors import DataError
from hard_ray.maths.noise import permutation

SplitName = Literal["train", "val", "test"]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """One row per image, over all splits. A row's number is its sample id."""

    reader: Reader
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    splits: Mapping[str, Rows]
    """`train`, `val` and, where there is one, `test`."""
    shard: NDArray[np.int32] | None = None
    """For sharded sources, the shard of each row; rows of one shard are neighbours."""

    def rows(self, split: str) -> Rows:
        """The rows of a split, in the source's order."""
        return self.splits[split]

    def fingerprint(self) -> str:
        """SHA-256 over labels, classes and splits."""
        digest = hashlib.sha256("\n".join(self.classes).encode())
        for part in (self.labels, *(self.splits[name] for name in sorted(self.splits))):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    @property
    def final_split(self) -> SplitName:
        """Where the finished student is measured: the test split, or without one the validation split."""
        return "test" if "test" in self.splits else "val"


def check_index(index: ImageIndex, *, where: str) -> ImageIndex:
    """Refuse data that nothing can be learned from.

    Raises:
        DataError: a split is empty, or the training split has fewer than two classes.
    """
    for split, rows in index.splits.items():
        if not len(rows):
            raise DataError(f"{where}: the {split} split holds no image")
    found = np.unique(index.labels[index.splits["train"]])
    if len(index.classes) < 2 or len(found) < 2:
        only = index.classes[int(found[0])] if len(found) else "none"
        raise DataError(f"{where}: the training split has one class only ({only!r}); a classifier needs two or more")
    return index


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
