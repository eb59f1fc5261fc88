"""From a configuration to an index: which images there are, of which classes, in which splits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import assert_never

import numpy as np
import pyarrow as pa
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
from hard_ray.data.index import ImageIndex, Rows, check_index, split_off, with_validation
from hard_ray.data.readers import ArrayReader, FileReader
from hard_ray.errors import DataError

IMAGE_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif"]
)
USUAL_SPLITS = {"train", "training", "trainval", "val", "valid", "validation", "dev", "test", "testing"}
"""Where nothing else is there, these are no classes."""
SPLIT_NAMES = {"val": ("val", "validation", "valid"), "test": ("test",)}


def build_index(config: DataConfig) -> ImageIndex:
    """Look at the source and index it.

    Raises:
        DataError: it is missing, empty, or holds one class only.
    """
    match config:
        case DigitsData():
            index = _digits(config)
        case IdxData():
            from hard_ray.data.idx import build_idx

            index = build_idx(config)
        case ImageFolderData():
            index = _image_folder(config)
        case ParquetData():
            from hard_ray.data.sharded import build_parquet

            index = build_parquet(config)
        case WebDatasetData():
            from hard_ray.data.sharded import build_webdataset

            index = build_webdataset(config)
        case TorchvisionData():
            from hard_ray.data.named import build_torchvision

            index = build_torchvision(config)
        case HuggingFaceData():
            from hard_ray.data.named import build_hugging_face

            index = build_hugging_face(config)
        case _:
            assert_never(config)
    return check_index(index, where=describe(config))


def _digits(config: DigitsData) -> ImageIndex:
    """Stratified 1,297 / 200 / 300; the digit is resized and stands in the middle of the field."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    side, inset = config.digit_size, (config.img_size - config.digit_size) // 2
    field = np.zeros((len(digits.images), config.img_size, config.img_size), dtype=np.uint8)
    for row, image in enumerate(np.rint(digits.images * (255 / 16)).astype(np.uint8)):
        resized = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
        field[row, inset : inset + side, inset : inset + side] = np.asarray(resized)
    labels = digits.target.astype(np.int64)
    everything: Rows = np.arange(len(labels))
    rest, test = split_off(everything, labels, fraction=300 / 1797, seed=config.split_seed, purpose="test split")
    train, val = split_off(rest, labels, fraction=200 / 1497, seed=config.split_seed, purpose="val split")
    classes = tuple(str(digit) for digit in range(10))
    splits = {"train": train, "val": val, "test": test}
    return ImageIndex(ArrayReader(field, "digits"), labels, classes, splits)


def _image_folder(config: ImageFolderData) -> ImageIndex:
    root = require_folder(config.path)
    names = find_splits(config, [entry.name for entry in os.scandir(root) if entry.is_dir()])
    if names:
        folders = {split: root / name for split, name in names.items()}
        classes = class_folders(folders["train"])
    else:
        folders = {"train": root}
        classes = class_folders(root)
    paths: list[str] = []
    labels: list[int] = []
    splits: dict[str, Rows] = {}
    for split, folder in folders.items():
        start = len(paths)
        for name in class_folders(folder):
            if name not in classes:
                raise DataError(f"{folder / name}: the training split has no class {name!r}; it has {some(classes)}")
            found = sorted(images_below(folder / name))
            paths += [os.path.relpath(path, root) for path in found]
            labels += [classes.index(name)] * len(found)
        splits[split] = np.arange(start, len(paths))
    _refuse_empty(root, classes, paths)
    reader = FileReader(root, pa.array(paths, pa.large_string()))
    label_array = np.array(labels, dtype=np.int64)
    if not names:
        splits = split_single(label_array, config.val_fraction, config.split_seed)
    else:
        splits = with_validation(splits, label_array, fraction=config.val_fraction, seed=config.split_seed)
    return ImageIndex(reader, label_array, classes, splits)


def split_single(labels: NDArray[np.int64], fraction: float, seed: int) -> dict[str, Rows]:
    """One pool of images becomes three splits: `fraction` for test, `fraction` for val, the rest for train."""
    everything: Rows = np.arange(len(labels))
    rest, test = split_off(everything, labels, fraction=fraction, seed=seed, purpose="test split")
    train, val = split_off(rest, labels, fraction=fraction / (1 - fraction), seed=seed, purpose="val split")
    return {"train": train, "val": val, "test": test}


def require_folder(path: Path) -> Path:
    """The folder, which must be there.

    Raises:
        DataError: it is not there, or is no folder.
    """
    folder = path.expanduser()
    if not folder.exists():
        raise DataError(f"data.path {path}: there is no such folder")
    if not folder.is_dir():
        raise DataError(f"data.path {path}: want a folder, this is a file")
    return folder.resolve()


def find_splits(
    config: ImageFolderData | ParquetData | WebDatasetData | HuggingFaceData, present: Sequence[str]
) -> dict[str, str]:
    """Which of the `present` names are the splits; empty where there is no training split, and no other.

    Raises:
        DataError: a split that the configuration names is not there, or there are splits, and which is for training
            is not known.
    """
    if config.train_split not in present:
        is_named = config.train_split != "train" or config.val_split is not None or config.test_split is not None
        if is_named or (len(present) > 1 and {name.lower() for name in present} <= USUAL_SPLITS):
            raise DataError(
                f"data.train_split {config.train_split!r} is not among {some(sorted(present))}; set it to one of them"
            )
        return {}
    found = {"train": config.train_split}
    for split, usual in SPLIT_NAMES.items():
        named = getattr(config, f"{split}_split")
        if named is not None and named not in present:
            raise DataError(f"data.{split}_split {named!r} is not among {some(sorted(present))}")
        name = named or next((name for name in usual if name in present), None)
        if name is not None:
            found[split] = name
    return found


def class_folders(folder: Path) -> tuple[str, ...]:
    """The names of the folders in a folder, sorted; hidden ones are none."""
    return tuple(sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."))


def images_below(folder: Path) -> Iterator[str]:
    """The image files in a folder and below, by their suffix."""
    for where, _, names in os.walk(folder, followlinks=True):
        yield from (os.path.join(where, name) for name in names if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES)


def _refuse_empty(root: Path, classes: Sequence[str], paths: Sequence[str]) -> None:
    if not classes:
        raise DataError(
            f"data.path {root}: holds no class folders; want {root.name}/train/CLASS/IMAGE.jpg "
            f"or {root.name}/CLASS/IMAGE.jpg"
        )
    if not paths:
        raise DataError(
            f"data.path {root}: {len(classes)} class folders, but no image in them; "
            f"want files that end in {', '.join(sorted(IMAGE_SUFFIXES))}"
        )


def some(names: Sequence[str]) -> str:
    """The first ten names, for a message."""
    shown = ", ".join(repr(name) for name in names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown or "nothing"
