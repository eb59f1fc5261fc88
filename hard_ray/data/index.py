"""The index of a data set: labels, classes and splits, without pixels."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hard_ray.data.account import Account
from hard_ray.data.labels import Labels
from hard_ray.data.readers import Reader
from hard_ray.errors import DataError

SplitName = Literal["train", "val", "test"]
Rows = NDArray[np.int64]

NO_LABEL = -1
"""In `ImageIndex.labels`: the image has no label."""


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """One row per image, over all splits. A row's number is its sample id."""

    reader: Reader
    labels: NDArray[np.int64]
    """The class of each row; `NO_LABEL` where it has none."""
    classes: tuple[str, ...]
    """Those of the data or, where no image has a label, the answers of the teacher; empty before these are known."""
    splits: Mapping[str, Rows]
    """`train`, `val` and, where there is one, `test`."""
    shard: NDArray[np.int32] | None = None
    """For sharded sources, the shard of each row; rows of one shard are neighbours."""
    account: Account = field(default_factory=Account)
    """What was found, used and left out."""
    has_labels: bool = True
    """Whether the images that are measured have labels."""

    def rows(self, split: str) -> Rows:
        """The rows of a split, in the source's order."""
        return self.splits[split]

    def rows_to_look_at(self, split: str, count: int) -> Rows:
        """The rows of a split, of which `count` come first that are spread over all of it.

        Most sources are sorted by class: the first of them are alike.
        """
        rows = self.rows(split)
        first = spread_places(len(rows), count)
        return np.concatenate([rows[first], np.delete(rows, first)])

    def unlabelled(self, split: str) -> Rows:
        """The rows of a split that have no label."""
        rows = self.rows(split)
        found: Rows = rows[self.labels[rows] == NO_LABEL]
        return found

    def fingerprint(self) -> str:
        """SHA-256 over labels, classes and splits."""
        digest = hashlib.sha256("\n".join(self.classes).encode())
        for part in (self.labels, *(self.splits[name] for name in sorted(self.splits))):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    @property
    def final_split(self) -> SplitName:
        """The split that the finished student is measured on: `test`, or `val` where there is no test split."""
        return "test" if "test" in self.splits else "val"


@dataclass(frozen=True, slots=True)
class FoundImages:
    """The images of a source, before their labels are numbered and they are split."""

    reader: Reader
    labels: Labels
    """One class number or class name per row; without labels, none for each."""
    where: str
    """The source, for messages about its labels."""
    names: Sequence[str] | None = None
    """Class names in the order of the class numbers, where the source has them."""
    splits: Mapping[str, Rows] = field(default_factory=dict)
    """The rows of each split, those of the test split last; empty where all images are one pool."""
    shard: NDArray[np.int32] | None = None
    """For sharded sources, the shard of each row."""
    account: Account = field(default_factory=Account)
    """What was found, used and left out."""
    label_from: str = "its label"
    """Where a label stands, with the key that chooses it, for messages: `column 'label' (data.label_column)`."""
    has_labels: bool = True
    """Whether the images have labels."""

    def describe(self, row: int) -> str:
        """A row with its origin and split, for messages about its label."""
        split = next((name for name, rows in self.splits.items() if row in rows), None)
        return f"{self.where}: {self.reader.name(row)}" + (f" ({split} split)" if split else "")


def spread_places(length: int, count: int) -> Rows:
    """At most `count` places that are spread over all of a sequence, with its first and last."""
    return np.linspace(0, length - 1, min(count, length)).astype(np.int64)


def check_index(index: ImageIndex, *, where: str) -> ImageIndex:
    """Return the index; raises DataError if a split is empty, or labels are of fewer than two classes in training."""
    for split, rows in index.splits.items():
        if not len(rows):
            otherwise = "" if split == "train" else f", or set data.{split}_split=false to do without it"
            raise DataError(f"{where}: the {split} split holds no image; put its images there{otherwise}")
    if not index.has_labels:
        return index
    odd = next((name for name in index.classes if len(name.splitlines()) != 1), None)
    if odd is not None:
        raise DataError(f"{where}: the class {odd!r} is empty or has a line break in its name; rename it")
    labels = index.labels[index.splits["train"]]
    found = np.unique(labels[labels != NO_LABEL])
    if len(index.classes) < 2 or len(found) < 2:
        only = index.classes[int(found[0])] if len(found) else "none"
        raise DataError(
            f"{where}: the training split has one class only ({only!r}); a classifier needs two or more; add the "
            "images of others"
        )
    return index


MOST_CLASSES = 1_000_000
"""Class numbers must be below this: every class takes a name, and a row in the student's last layer."""


def encode_labels(found: FoundImages) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Class names, sorted, and the class number of each label; integers are class numbers already.

    Names are in Unicode's composed form, so that two forms of one name are one class.

    Raises DataError if a label is missing, is neither a number below `MOST_CLASSES` nor a string, or some are numbers
    and others are names.
    """
    values, numbers = found.labels, found.labels.numbers
    is_number = values.are_numbers
    wrong = values.missing | (is_number & ((numbers < 0) | (numbers >= MOST_CLASSES)))
    if wrong.any():
        raise DataError(_no_label(found, int(wrong.argmax())))
    if is_number.all():
        return _numbered(found), numbers
    if is_number.any():
        number_at, name_at = int(is_number.argmax()), int((~is_number).argmax())
        raise DataError(
            f"{found.describe(name_at)}: {found.label_from} is the name {values[name_at]!r}, but the number "
            f"{values[number_at]!r} in {found.reader.name(number_at)}; want numbers everywhere, or names everywhere"
        )
    assert values.places is not None
    used = values.used_names
    composed = [unicodedata.normalize("NFC", name) for name in values.names]
    classes = tuple(sorted({text for name, text in zip(values.names, composed, strict=True) if name in used}))
    number = {name: position for position, name in enumerate(classes)}
    return classes, np.array([number.get(text, NO_LABEL) for text in composed], dtype=np.int64)[values.places]


def _numbered(found: FoundImages) -> tuple[str, ...]:
    """The names of classes that are numbers."""
    names = tuple(unicodedata.normalize("NFC", name) for name in found.names or ())
    count = max(len(names), int(found.labels.numbers.max(initial=-1)) + 1)
    if len(names) == count:
        return names
    if names:
        found.account.notes.append(
            f"{found.where}: {len(names):,} class names, but labels up to {count - 1:,}: classes are called by "
            f"their numbers; correct the names, or {found.label_from}"
        )
    return tuple(str(number) for number in range(count))


def _no_label(found: FoundImages, row: int) -> str:
    missing = " (no label)" if found.labels.missing[row] else ""
    split = next((name for name, rows in found.splits.items() if row in rows), None)
    otherwise = f", or leave the split out with data.{split}_split=false" if split in ("val", "test") else ""
    return (
        f"{found.describe(row)}: the label {found.labels[row]!r}{missing} is neither a class number below "
        f"{MOST_CLASSES:,} nor a class name; correct {found.label_from}, or leave the image out{otherwise}"
    )
