"""Images without labels beside labelled ones: one index of both."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from hard_ray.config.data import (
    ParquetData,
    UnlabelledConfig,
    UnlabelledImages,
    UnlabelledParquet,
    UnlabelledWebDataset,
    WebDatasetData,
)
from hard_ray.data.account import Account
from hard_ray.data.index import NO_LABEL, FoundImages, ImageIndex, Rows
from hard_ray.data.readers import FileReader, JoinedReader, ObjectReader, Reader
from hard_ray.data.sources.images import find_images
from hard_ray.data.sources.parquet import find_parquet
from hard_ray.data.sources.parts import Spread
from hard_ray.data.sources.webdataset import find_webdataset
from hard_ray.errors import DataError
from hard_ray.storage.cache import ObjectCache

KEY = "data.unlabelled"
USED = "a file of the labelled data too"
MOST_BROKEN = 0.01
"""Largest share of links that lead nowhere."""


def with_unlabelled(index: ImageIndex, config: UnlabelledConfig, spread: Spread, cache: ObjectCache) -> ImageIndex:
    """The index with further rows, without labels, at the end of its training split.

    A file that the labelled data use too is left out, as it may be one of those that are measured.

    Raises DataError if there is no image, or all of them are left out.
    """
    found = _find(config, spread, cache)
    own, rows = index.account, _not_in(found, index.reader)
    if not len(rows):
        raise DataError(
            f"{KEY}.path {config.path}: each of its {len(found.labels):,} images is one of the labelled data; want "
            f"others; set {KEY}.path to their folder, or {KEY}=null"
        )
    first = len(index.labels)
    own.notes += [
        f"{KEY}: {len(rows):,} images without labels from {config.path} are trained on beside "
        f"{len(index.rows('train')):,} labelled ones",
        *_left_out(found.account),
        *(_named(note) for note in found.account.notes),
    ]
    labels = np.concatenate([index.labels, np.full(len(rows), NO_LABEL)])
    train = np.concatenate([index.rows("train"), np.arange(first, first + len(rows))])
    return replace(
        index,
        reader=JoinedReader(index.reader, found.reader, first, rows),
        labels=labels,
        splits={**index.splits, "train": train},
        shard=_shards(index.shard, None if found.shard is None else found.shard[rows], first, len(rows)),
    )


def _find(config: UnlabelledConfig, spread: Spread, cache: ObjectCache) -> FoundImages:
    """All images of the source, as one pool; the messages of its errors name the keys of this block."""
    try:
        match config:
            case UnlabelledImages():
                return find_images(config.place, MOST_BROKEN, cache)
            case UnlabelledParquet():
                given = config.model_dump() | {"label_column": None, "train_split": False}
                return find_parquet(ParquetData.model_validate(given), spread, cache)
            case UnlabelledWebDataset():
                given = config.model_dump() | {"label_key": None, "train_split": False}
                return find_webdataset(WebDatasetData.model_validate(given), spread, cache)
            case _:
                assert_never(config)
    except DataError as error:
        raise DataError(_named(str(error))) from None


def _named(text: str) -> str:
    """A sentence about a source, with the keys of this block."""
    return text.replace("data.", f"{KEY}.")


def _not_in(found: FoundImages, reader: Reader) -> Rows:
    """The rows of images that are no files of the labelled data."""
    rows = np.arange(len(found.labels))
    if not (isinstance(found.reader, FileReader | ObjectReader) and isinstance(reader, type(found.reader))):
        return rows
    labelled = {os.path.realpath(path) for path in reader.every_path()}
    again = np.array([os.path.realpath(path) in labelled for path in found.reader.every_path()], dtype=bool)
    for row in np.flatnonzero(again)[:1]:
        found.account.files.leave_out(USED, found.reader.name(int(row)), count=int(again.sum()))
    others: Rows = rows[~again]
    return others


def _left_out(account: Account) -> list[str]:
    """A sentence for each reason why files or rows of the source are not used."""
    return [
        f"{KEY}: {entry.count:,} left out: {reason}, first {entry.example}"
        for tally in (account.files, account.items)
        for reason, entry in tally.left_out.items()
    ]


def _shards(
    labelled: NDArray[np.int32] | None, unlabelled: NDArray[np.int32] | None, first: int, count: int
) -> NDArray[np.int32] | None:
    """The shard of each row; rows of a source without shards are one shard, which is shuffled as a whole."""
    if labelled is None and unlabelled is None:
        return None
    one = np.zeros(first, dtype=np.int32) if labelled is None else labelled
    other = np.zeros(count, dtype=np.int32) if unlabelled is None else unlabelled
    return np.concatenate([one, other + one.max(initial=0) + 1])
