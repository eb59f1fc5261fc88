"""Build the index of a configured source: its images, their classes and their splits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from hard_ray.config.data import (
    DataConfig,
    DigitsData,
    HuggingFaceData,
    IdxData,
    ImageFolderData,
    ImagesData,
    ParquetData,
    TorchvisionData,
    WebDatasetData,
    describe,
)
from hard_ray.config.runtime import RuntimeConfig
from hard_ray.data import kept_index
from hard_ray.data.index import NO_LABEL, FoundImages, ImageIndex, Rows, check_index, encode_labels
from hard_ray.data.layout import some
from hard_ray.data.mapped import Mapped, Place, map_array
from hard_ray.data.sources.digits import SHARES, find_digits
from hard_ray.data.sources.hugging_face import find_hugging_face
from hard_ray.data.sources.idx import find_idx
from hard_ray.data.sources.image_folder import find_image_folder
from hard_ray.data.sources.images import find_images
from hard_ray.data.sources.parquet import find_parquet
from hard_ray.data.sources.parts import Spread, in_threads
from hard_ray.data.sources.torchvision_sets import find_torchvision
from hard_ray.data.sources.unlabelled import with_unlabelled
from hard_ray.data.sources.webdataset import find_webdataset
from hard_ray.data.splits import split_pool, with_validation
from hard_ray.errors import DataError
from hard_ray.storage.cache import ObjectCache


def build_index(config: DataConfig, spread: Spread = in_threads, *, cache: ObjectCache | None = None) -> ImageIndex:
    """Number a source's labels and split its images; raises DataError if it is missing, empty, or of one class only.

    Where no image has a label, the index has no classes. The index of a large source is kept for the next start, and
    made anew once any of its files has changed; `spread` divides the work of that. `cache` holds what is read of
    buckets; see `cache_of`.
    """
    cache = cache or cache_of(RuntimeConfig())
    place = kept_index.place_of(config)
    index = None if place is None else kept_index.load(place, open_sent, cache)
    if index is None:
        index = _made(config, spread, cache)
        if place is not None:
            index = kept_index.keep(index, place, open_sent, cache)
    return index if config.unlabelled is None else with_unlabelled(index, config.unlabelled, spread, cache)


def cache_of(runtime: RuntimeConfig) -> ObjectCache:
    """The cache of objects that every process of a node shares."""
    return ObjectCache.of_settings(runtime.cache_dir, runtime.cache_gb)


def open_sent(place: Place, name: str) -> NDArray[Any]:
    """The array that another process sent; on a node without the index, it is made there from the data first.

    Raises DataError if that node's data are not the same.
    """
    try:
        return map_array(place, name, open_sent)
    except (OSError, ValueError):
        return map_array(_made_again(place), name, open_sent)


def _made_again(place: Place) -> Place:
    node, config = os.uname().nodename, TypeAdapter[DataConfig](DataConfig).validate_json(place.settings)
    index = build_index(config)
    if index.fingerprint() != place.fingerprint:
        raise DataError(
            f"{node}: the data at {describe(config)} differ from those of the node that started the run, in labels, "
            "classes or splits; put the same data on every node"
        )
    found = index.labels.place if isinstance(index.labels, Mapped) else None
    if found is None:
        raise DataError(
            f"{node}: the index of the data cannot be kept ({'; '.join(index.account.said)}); make room in "
            f"{kept_index.kept_indexes()}, or set HARDRAY_CACHE to a folder with room"
        )
    return found


def _made(config: DataConfig, spread: Spread, cache: ObjectCache) -> ImageIndex:
    """The index of the source alone, from its files."""
    found = _find(config, spread, cache)
    if found.has_labels:
        found = _without_unlabelled(config, found)
        classes, labels = encode_labels(found)
    else:
        classes, labels = (), np.full(len(found.labels), NO_LABEL)
    splits = _splits(config, found, labels)
    _note_origins(config, found, splits)
    if found.has_labels:
        _note_empty_classes(found, labels, classes, splits["train"])
    index = ImageIndex(found.reader, labels, classes, splits, found.shard, found.account, found.has_labels)
    return check_index(index, where=describe(config))


def _without_unlabelled(config: DataConfig, found: FoundImages) -> FoundImages:
    """The images without a test split of which no image has a label; raises DataError if it is configured."""
    rows = found.splits.get("test")
    if rows is None or not len(rows) or not found.labels.missing[rows].all():
        return found
    example = found.reader.name(int(rows[0]))
    what = f"the {len(rows):,} images of the test split have no labels: {found.label_from} is {found.labels[rows[0]]!r}"
    if getattr(config, "test_split", None) is not None:
        raise DataError(f"{example}: {what}; give them labels, or set data.test_split=false")
    account, first = found.account, int(rows[0])  # its rows are the last
    account.items.leave_out("the test split has no labels", example, count=len(rows))
    account.items.used -= len(rows) if account.items.used else 0
    account.origins.pop("test", None)
    account.notes.append(f"{what}; there is no test split, and the student is measured on val")
    splits = {split: own for split, own in found.splits.items() if split != "test"}
    shard = None if found.shard is None else found.shard[:first]
    return replace(found, labels=found.labels.take(slice(first)), splits=splits, shard=shard)


def _find(config: DataConfig, spread: Spread, cache: ObjectCache) -> FoundImages:  # noqa: PLR0911  (one for each kind)
    match config:
        case DigitsData():
            return find_digits(config)
        case IdxData():
            return find_idx(config)
        case ImageFolderData():
            return find_image_folder(config, cache)
        case ImagesData():
            return find_images(config.place, config.max_bad_fraction, cache)
        case ParquetData():
            return find_parquet(config, spread, cache)
        case WebDatasetData():
            return find_webdataset(config, spread, cache)
        case TorchvisionData():
            return find_torchvision(config)
        case HuggingFaceData():
            return find_hugging_face(config)
        case _:
            assert_never(config)


def _splits(config: DataConfig, found: FoundImages, labels: NDArray[np.int64]) -> dict[str, Rows]:
    """The splits that the source has, and those it lacks, split off by the data's own seed."""
    fraction, seed = config.val_fraction, config.split_seed
    if found.splits:
        return with_validation(found.splits, labels, fraction=fraction, seed=seed)
    if getattr(config, "test_split", None) is False:
        return with_validation({"train": np.arange(len(labels))}, labels, fraction=fraction, seed=seed)
    test, val = SHARES if isinstance(config, DigitsData) else (fraction, fraction / (1 - fraction))
    return split_pool(labels, test=test, val=val, seed=seed)


def _note_empty_classes(found: FoundImages, labels: NDArray[np.int64], classes: tuple[str, ...], train: Rows) -> None:
    """Note the classes that have no image to learn from, or none in a held-out split that the source has."""
    for split, rows in {
        "train": train,
        **{name: found.splits[name] for name in found.splits if name != "train"},
    }.items():
        empty = np.flatnonzero(np.bincount(labels[rows], minlength=len(classes)) == 0)
        if 0 < len(empty) < len(classes):
            names = some([classes[number] for number in empty[:11]])
            found.account.notes.append(f"{len(empty):,} of {len(classes):,} classes have no image in {split}: {names}")


def _note_origins(config: DataConfig, found: FoundImages, splits: Mapping[str, Rows]) -> None:
    """Enter where each split comes from, unless the finder has."""
    origins = found.account.origins
    for split in splits:
        if split in found.splits:
            origins.setdefault(split, "the source's own split")
        elif split == "train":
            origins[split] = "all other images"
        else:
            pool = "the training split" if found.splits else "all images"
            origins[split] = f"split off from {pool} by data.split_seed {config.split_seed}"
