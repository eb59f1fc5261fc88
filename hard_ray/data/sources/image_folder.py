"""Folders of images: one for each class, within one for each split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from hard_ray.config.data import ImageFolderData
from hard_ray.data.index import FoundImages, Rows
from hard_ray.data.layout import IMAGE_SUFFIXES, class_folders, find_splits, images_below, require_folder, some
from hard_ray.data.readers import FileReader
from hard_ray.errors import DataError


def find_image_folder(config: ImageFolderData) -> FoundImages:
    """List the images of every class folder, sorted; without split folders they are one pool."""
    root = require_folder(config.path)
    names = find_splits(config, [entry.name for entry in os.scandir(root) if entry.is_dir()])
    folders = {split: root / name for split, name in names.items()} or {"train": root}
    classes = class_folders(folders["train"])
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
    return FoundImages(reader, labels, str(root), classes, splits if names else {})


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
