"""Published test sets in their usual folders: images, classes and conditions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from hard_ray.config.evaluation import Published
from hard_ray.data.account import Tally
from hard_ray.data.layout import some
from hard_ray.data.listing import HARMLESS, each_once, folders_in, list_images
from hard_ray.data.mapped import Names
from hard_ray.data.readers import FileReader
from hard_ray.errors import DataError
from hard_ray.evaluation import corruptions

SUBSETS = {"imagenet-a": "imagenet_a_synsets.txt", "imagenet-r": "imagenet_r_synsets.txt"}
"""Sets of 200 of ImageNet's classes, with timm's file of the class names."""


@dataclass(frozen=True, slots=True)
class PublishedImages:
    """The images of one condition."""

    condition: str
    severity: str
    reader: FileReader
    labels: NDArray[np.int64]
    """Positions in `outputs`; without `outputs`, among the data's classes."""
    outputs: tuple[int, ...] | None = None
    """The data's classes that are compared; None: all."""


def open_published(name: Published, folder: Path, classes: Sequence[str]) -> list[PublishedImages]:
    """List the images of a published set and check its classes.

    `imagenet-c` is `corruption/severity/class`, with or without the archives' folders (`noise/`, `blur/`, ...) above;
    the others are `class/image`, with or without `val/` above. Classes are WordNet ids, and in `imagenet-v2` the
    numbers 0 to 999 in the order of the ids. The 200 classes of `imagenet-a` and `imagenet-r` are timm's lists.
    `classes` are the data's, in the order of the networks' outputs.

    Raises DataError if the folder does not exist, lacks a class, or has a class that the data lacks.
    """
    if not folder.expanduser().is_dir():
        raise DataError(f"{name}: {folder} is not a folder")
    root = folder.expanduser().resolve()
    match name:
        case "imagenet-c":
            return _corrupted(root, classes)
        case "imagenet-a" | "imagenet-r":
            return [_subset(name, _below_val(root), classes)]
        case "imagenet-v2":
            return [_numbered(root, classes)]
        case "imagenet-sketch" | "stylized-imagenet":
            return [_open(name, name, "0", _below_val(root), {each: each for each in classes}, classes)]
        case _:
            assert_never(name)


def imagenet_classes(file: str = "imagenet_synsets.txt") -> tuple[str, ...]:
    """WordNet ids of one of timm's lists, in the order of the outputs."""
    return tuple(resources.files("timm.data._info").joinpath(file).read_text(encoding="utf-8").split())


def _corrupted(root: Path, classes: Sequence[str]) -> list[PublishedImages]:
    known = (*corruptions.NAMES, *corruptions.EXTRA_NAMES)
    found = {path.name: path for path in (*root.glob("*"), *root.glob("*/*")) if path.name in known and path.is_dir()}
    if not found:
        raise DataError(
            f"imagenet-c: {root} holds no folder of a corruption; want {root.name}/{known[0]}/1/CLASS/IMAGE, or "
            f"{root.name}/noise/{known[0]}/1/CLASS/IMAGE"
        )
    parts = []
    for name in (name for name in known if name in found):
        severities = sorted(path for path in found[name].iterdir() if path.name in ("1", "2", "3", "4", "5"))
        if not severities:
            raise DataError(f"imagenet-c: {found[name]} holds no folder of a severity, 1 to 5")
        names = {each: each for each in classes}
        parts += [_open("imagenet-c", name, path.name, path, names, classes) for path in severities]
    return parts


def _subset(name: Published, root: Path, classes: Sequence[str]) -> PublishedImages:
    wanted = imagenet_classes(SUBSETS[name])
    absent = [each for each in wanted if each not in set(classes)]
    if absent:
        raise DataError(
            f"{name}: the data lacks {len(absent)} of the set's {len(wanted)} classes, first {absent[0]!r}; its "
            f"classes must be ImageNet's WordNet ids, and are {some(classes)}"
        )
    part = _open(name, name, "0", root, {each: each for each in wanted}, wanted)
    outputs = tuple(list(classes).index(each) for each in wanted)
    return PublishedImages(part.condition, part.severity, part.reader, part.labels, outputs)


def _numbered(root: Path, classes: Sequence[str]) -> PublishedImages:
    numbers = {str(number): each for number, each in enumerate(imagenet_classes())}
    absent = [each for each in numbers.values() if each not in set(classes)]
    if absent:
        raise DataError(
            f"imagenet-v2: the data lacks {len(absent)} of ImageNet's {len(numbers)} classes, first {absent[0]!r}; its "
            f"classes must be WordNet ids, and are {some(classes)}"
        )
    return _open("imagenet-v2", "imagenet-v2", "0", _below_val(root), numbers, classes)


def _open(
    name: Published, condition: str, severity: str, root: Path, folders: dict[str, str], classes: Sequence[str]
) -> PublishedImages:
    """List the images below a folder that must have exactly one folder for each class."""
    there = folders_in(str(root))
    missing = [folder for folder in folders if folder not in set(there)]
    if missing:
        raise DataError(f"{name}: {root} lacks {len(missing)} of {len(folders)} classes, first {missing[0]!r}")
    foreign = [folder for folder in there if folder not in folders]
    if foreign:
        raise DataError(f"{name}: {root} has a class {foreign[0]!r} that is not among {some(list(folders))}")
    position = {each: number for number, each in enumerate(classes)}
    paths, labels = [], []
    for folder, path in _listed(name, root, folders):
        paths.append(path)
        labels.append(position[folders[folder]])
    filled = set(labels)
    empty = [folder for folder in folders if position[folders[folder]] not in filled]
    if empty:
        raise DataError(f"{name}: {root / empty[0]} holds no image")
    reader = FileReader(root, Names.of(paths))
    return PublishedImages(condition, severity, reader, np.array(labels, dtype=np.int64))


def _listed(name: Published, root: Path, folders: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The class folder and the path of each image, each real file once.

    Raises DataError if one has two classes, or some cannot be read: a part of a set is another set.
    """
    tally = Tally()
    found = [image for folder in folders for image in list_images(f"{root}/{folder}", tally)]
    for reason, entry in tally.left_out.items():
        if reason not in HARMLESS:
            raise DataError(
                f"{name}: {entry.count:,} images are not used, first {entry.example}: {reason}; repair the set"
            )
    for image in each_once(found, lambda path: f"class {_class_folder(path, root)!r}", tally):
        yield _class_folder(image.path, root), os.path.relpath(image.path, root)


def _class_folder(path: str, root: Path) -> str:
    return Path(path).relative_to(root).parts[0]


def _below_val(root: Path) -> Path:
    return root / "val" if (root / "val").is_dir() else root
