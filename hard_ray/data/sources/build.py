"""Build the index of a configured source: its images, their classes and their splits."""

from __future__ import annotations

from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from hard_ray.config.data import (
    DataConfig,
    DigitsData,
    HuggingFaceData,
    IdxData,
    ImageFolderData,
    ParquetData,
    TorchvisionData,
    WebDatasetData,
    describe,
)
from hard_ray.data.index import FoundImages, ImageIndex, Rows, check_index, encode_labels
from hard_ray.data.sources.digits import SHARES, find_digits
from hard_ray.data.sources.hugging_face import find_hugging_face
from hard_ray.data.sources.idx import find_idx
from hard_ray.data.sources.image_folder import find_image_folder
from hard_ray.data.sources.parquet import find_parquet
from hard_ray.data.sources.torchvision_sets import find_torchvision
from hard_ray.data.sources.webdataset import find_webdataset
from hard_ray.data.splits import split_pool, with_validation


def build_index(config: DataConfig) -> ImageIndex:
    """Number a source's labels and split its images; raises DataError if it is missing, empty, or of one class only."""
    found = _find(config)
    classes, labels = encode_labels(found.labels, found.names, where=found.where)
    index = ImageIndex(found.reader, labels, classes, _splits(config, found, labels), found.shard, found.account)
    return check_index(index, where=describe(config))


def _find(config: DataConfig) -> FoundImages:  # noqa: PLR0911  (one for each kind)
    match config:
        case DigitsData():
            return find_digits(config)
        case IdxData():
            return find_idx(config)
        case ImageFolderData():
            return find_image_folder(config)
        case ParquetData():
            return find_parquet(config)
        case WebDatasetData():
            return find_webdataset(config)
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
    test, val = SHARES if isinstance(config, DigitsData) else (fraction, fraction / (1 - fraction))
    return split_pool(labels, test=test, val=val, seed=seed)
