"""Naming of folders and files: which are splits, which are classes, and which are images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from hard_ray.config.data import HuggingFaceData, ImageFolderData, ParquetData, WebDatasetData
from hard_ray.errors import DataError

IMAGE_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif"]
)

USUAL_SPLITS = {"train", "training", "trainval", "val", "valid", "validation", "dev", "test", "testing"}
"""Folders or files that all have such names are splits, not classes."""

SPLIT_NAMES = {"val": ("val", "validation", "valid"), "test": ("test",)}


def require_folder(path: Path) -> Path:
    """The absolute path of a folder; raises DataError if it does not exist, or is not a folder."""
    folder = path.expanduser()
    if not folder.exists():
        raise DataError(f"data.path {path}: there is no such folder")
    if not folder.is_dir():
        raise DataError(f"data.path {path}: want a folder, this is a file")
    return folder.resolve()


def find_splits(
    config: ImageFolderData | ParquetData | WebDatasetData | HuggingFaceData, present: Sequence[str]
) -> dict[str, str]:
    """The name of each split among the names that are `present`; empty if they are not split.

    Raises DataError if a split that the configuration names is not there, or none is known to be the training split.
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
    """The names of the folders in a folder, sorted, without hidden ones."""
    return tuple(sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."))


def images_below(folder: Path) -> Iterator[str]:
    """The image files in a folder and its subfolders, recognised by their suffix."""
    for where, _, names in os.walk(folder, followlinks=True):
        yield from (os.path.join(where, name) for name in names if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES)


def some(names: Sequence[str]) -> str:
    """The first ten names, for a message."""
    shown = ", ".join(repr(name) for name in names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown or "nothing"
