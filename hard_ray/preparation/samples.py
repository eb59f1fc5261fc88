"""Decode a few images of each split before a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from hard_ray.config.data import DataConfig
from hard_ray.data.index import ImageIndex, Rows
from hard_ray.data.remarks import remarks
from hard_ray.data.views import UnreadableImageError, decode, eval_view
from hard_ray.errors import DataError
from hard_ray.runs.bad_images import BadImages

SAMPLE = 16
"""Most images of each split that are decoded."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The images of a split's sample that cannot be decoded."""

    names: list[str]
    tried: int
    reason: str
    """Why the first of them cannot."""
    remarks: Counter[str]
    """What is not used of the others."""


def try_images(config: DataConfig, index: ImageIndex) -> list[str]:
    """Decode the first, the last and some images between of each split; return sentences about what is not used.

    Raises DataError if half of a split's sample cannot be decoded, or more than `data.max_bad_fraction` allows.
    """
    notes, budget = [], BadImages.allowed_by(config, len(index.labels))
    for split, rows in index.splits.items():
        found = _unreadable(config, index, _spread(rows))
        notes += [f"{n} of {found.tried} tried images of the {split} split {what}" for what, n in found.remarks.items()]
        if not found.names:
            continue
        said = (
            f"{len(found.names)} of {found.tried} tried images of the {split} split cannot be decoded, first "
            f"{found.names[0]} ({found.reason})"
        )
        if 2 * len(found.names) >= found.tried:
            raise DataError(f"{said}; want images that Pillow reads; replace them, or look at data.kind and data.path")
        budget.add(found.names)
        notes.append(f"{said}; in training, others take their place")
    return notes


def _spread(rows: Rows) -> Rows:
    """At most SAMPLE rows, evenly spread from the first to the last."""
    places = np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).round().astype(int)
    spread: Rows = rows[places]
    return spread


def _unreadable(config: DataConfig, index: ImageIndex, rows: Rows) -> Unreadable:
    names, reason, seen = [], "", Counter[str]()
    for row, picture in zip(rows.tolist(), index.reader.read(rows.tolist()), strict=True):
        try:
            eval_view(decode(picture, in_chans=config.in_chans), config)
            seen.update(remarks(picture))
        except UnreadableImageError as error:
            names.append(index.reader.name(row))
            reason = reason or str(error)
    return Unreadable(names, len(rows), reason, seen)
