"""The labels of torchvision's data sets, wherever a class keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from hard_ray.data.account import Account
from hard_ray.errors import DataError, readable

_LISTS = ("targets", "labels", "_labels", "y")
"""Attributes with a label for each row."""
_PAIRS = {"_samples": 1, "samples": 1, "_flat_character_images": 1, "index": 0}
"""Attributes with a pair for each row, and the place of the label in it."""


def labels_of(data: Any, *, where: str, account: Account) -> list[int | None]:
    """The label of each row, None for a row without one.

    A list that the class keeps is taken if it says of the first row what the data set itself says; otherwise every row
    is read, which is noted. Raises DataError if the labels are no class numbers, as those of a detection data set.
    """
    try:
        count = len(data)
    except Exception as error:  # of a class that only others are made from
        raise DataError(f"{where}: has no length ({readable(error)}); name a data set for classification") from None
    if not count:
        return []
    first: int | None = None
    try:
        item, problem = data[0], None
    except Exception as error:  # a picture that cannot be read says nothing about labels
        item, problem = (None, None), error
    if problem is None:
        first = _checked(item, where)
    for labels in _kept(data):
        if len(labels) == count and (problem is not None or labels[0] == first):
            return labels
    if problem is not None:
        raise DataError(f"{where}: its labels are only known with its images, and the first cannot be read: {problem}")
    account.notes.append(f"{where}: its labels were read with its images, one by one; data.kind=parquet starts faster")
    return [_checked(data[row], where) for row in range(count)]


def _kept(data: Any) -> Iterator[list[int | None]]:
    """Yield the lists that a class may keep its labels in, if they are class numbers."""
    for key in (*_LISTS, *_PAIRS):
        try:
            found = getattr(data, key, None)
            if found is not None:
                yield [_number(entry if key in _LISTS else entry[_PAIRS[key]]) for entry in found]
        except (TypeError, ValueError, IndexError, KeyError):
            continue


def _checked(item: Any, where: str) -> int | None:
    """The label in an item of a data set."""
    try:
        _, target = item
        return _number(target)
    except (TypeError, ValueError):
        kinds = [type(part).__name__ for part in item] if isinstance(item, tuple) else [type(item).__name__]
        raise DataError(
            f"{where}: an item is ({', '.join(kinds)}), and not an image with a class number; want a data set for "
            "classification, or set what it gives in data.arguments"
        ) from None


def _number(value: Any) -> int | None:
    """A label as a number; raises TypeError or ValueError if it is none."""
    if value is None:
        return None
    array = np.asarray(value)
    if array.ndim or array.dtype.kind not in "iu":
        raise TypeError(f"{value!r} is no class number")
    return int(array)
