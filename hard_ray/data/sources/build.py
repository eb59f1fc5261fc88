"""From a configuration to an index: which images there are, of which classes, in which splits."""

from __future__ import annotations

from typing import assert_never

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
from hard_ray.data.index import ImageIndex, check_index
from hard_ray.data.sources.digits import _digits
from hard_ray.data.sources.image_folder import _image_folder


def build_index(config: DataConfig) -> ImageIndex:
    """Look at the source and index it.

    Raises:
        DataError: it is missing, empty, or holds one class only.
    """
    match config:
        case DigitsData():
            index = _digits(config)
        case IdxData():
            from hard_ray.data.sources.idx import build_idx

            index = build_idx(config)
        case ImageFolderData():
            index = _image_folder(config)
        case ParquetData():
            from hard_ray.data.sources.shards import build_parquet

            index = build_parquet(config)
        case WebDatasetData():
            from hard_ray.data.sources.shards import build_webdataset

            index = build_webdataset(config)
        case TorchvisionData():
            from hard_ray.data.sources.torchvision_sets import build_torchvision

            index = build_torchvision(config)
        case HuggingFaceData():
            from hard_ray.data.sources.hugging_face import build_hugging_face

            index = build_hugging_face(config)
        case _:
            assert_never(config)
    return check_index(index, where=describe(config))
