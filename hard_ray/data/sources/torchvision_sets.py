"""Data sets of torchvision, by class name."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import EpsImagePlugin

from hard_ray.config.data import TorchvisionData
from hard_ray.data.index import FoundImages, Rows
from hard_ray.data.readers import Picture, split_of
from hard_ray.errors import DataError, readable


@functools.lru_cache(maxsize=4)
def open_torchvision(name: str, path: Path, split: str, *, download: bool) -> Any:
    """One split of a torchvision data set; some classes take `train`, others `split`."""
    from torchvision import datasets

    factory = getattr(datasets, name, None)
    if factory is None:
        raise DataError(f"data.name {name!r}: torchvision.datasets has no such class")
    # torchvision lets every plugin of Pillow's try a file, and this one would run Ghostscript
    EpsImagePlugin.gs_binary = False
    root = path.expanduser()
    attempts: list[dict[str, Any]] = [{"train": split == "train"}, {"split": split}]
    for arguments in attempts:
        for more in ({"download": download}, {}):
            try:
                return factory(str(root), **arguments, **more)
            except TypeError:
                continue
            except (RuntimeError, OSError, ValueError) as error:
                raise DataError(f"data.name {name}, split {split}, in {root}: {error}") from None
    raise DataError(f"data.name {name!r}: takes neither `train` nor `split`, so it has no known splits")


def find_torchvision(config: TorchvisionData) -> FoundImages:
    """Take the training and test splits as torchvision has them."""
    labels: list[int] = []
    splits: dict[str, Rows] = {}
    starts = []
    classes: list[str] = []
    for split in ("train", "test"):
        data = open_torchvision(config.name, config.path, split, download=config.download)
        targets = next((getattr(data, key) for key in ("targets", "labels", "_labels") if hasattr(data, key)), None)
        if targets is None:
            raise DataError(f"data.name {config.name}: has no list of targets, so it is not a classification data set")
        starts.append((split, len(labels)))
        splits[split] = np.arange(len(labels), len(labels) + len(targets))
        labels += [int(target) for target in targets]
        classes = [str(name) for name in getattr(data, "classes", ())]
    names = classes if len(classes) == max(labels) + 1 else None
    reader = TorchvisionReader(config.name, config.path, tuple(starts))
    return FoundImages(reader, labels, f"data.name {config.name}", names, splits)


@dataclass(frozen=True, slots=True)
class TorchvisionReader:
    """Reads rows of a torchvision data set; the test split's rows follow the training split's."""

    name_: str
    path: Path
    splits: tuple[tuple[str, int], ...]
    """Each split's name and first row."""

    def read(self, rows: Sequence[int]) -> list[Picture]:
        """The decoded pictures."""
        pictures: list[Picture] = []
        for row in rows:
            split, start = split_of(row, self.splits)
            data = open_torchvision(self.name_, self.path, split, download=False)
            try:
                pictures.append(data[row - start][0])
            except Exception as error:  # it decodes, and Pillow's plugins raise errors of any type
                pictures.append(OSError(readable(error)))
        return pictures

    def name(self, row: int) -> str:
        """The data set and the row."""
        return f"{self.name_}[{row}]"
