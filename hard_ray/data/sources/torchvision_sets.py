"""Data sets of torchvision, by class name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import EpsImagePlugin

from hard_ray.config.data import TorchvisionData
from hard_ray.data.account import Account
from hard_ray.data.index import FoundImages, Rows
from hard_ray.data.labels import Labels
from hard_ray.data.mapped import Names
from hard_ray.data.readers import FileReader, Picture, split_of
from hard_ray.data.sources.torchvision_labels import labels_of
from hard_ray.errors import DataError, readable, suggestion

TRAIN_NAMES, VAL_NAMES, TEST_NAMES = ("train", "trainval", "train-standard"), ("val", "valid", "validation"), ("test",)
"""Names of the splits in torchvision's classes, the first that a class has."""
_HAS_NOT = "Unknown value"
"""The beginning of torchvision's error for a split that a class does not have."""


@dataclass(frozen=True, slots=True)
class TorchvisionSet:
    """One of torchvision's classes, with what decides its content."""

    name: str
    path: Path
    arguments: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, config: TorchvisionData) -> TorchvisionSet:
        """The class that a configuration names."""
        return cls(config.name, config.path, tuple(sorted(config.arguments.items())))

    @property
    def folder(self) -> Path:
        """The folder that torchvision reads from."""
        return self.path.expanduser()

    @property
    def where(self) -> str:
        """The class and its folder, for messages."""
        return f"data.name {self.name} in {self.folder}"

    def factory(self) -> type:
        """The class itself; raises DataError if torchvision has none of this name."""
        from torchvision import datasets

        found = getattr(datasets, self.name, None)
        if not isinstance(found, type):
            known = [name for name in datasets.__all__ if isinstance(getattr(datasets, name), type)]
            close = suggestion(self.name, known, most=3, otherwise="see torchvision's documentation for their names")
            raise DataError(f"data.name {self.name!r}: torchvision.datasets has no such class; {close}")
        return found

    @property
    def chooses_by(self) -> str | None:
        """The argument that chooses a split, `train` or `split`; None if the class has one pool of images."""
        known = _parameters(self.factory())
        return (
            "train"
            if "train" in known
            else "split"
            if "split" in known and "split" not in dict(self.arguments)
            else None
        )


def _parameters(factory: type) -> set[str]:
    """The arguments of a class, and of the classes that it passes the others on to."""
    names: set[str] = set()
    for each in factory.__mro__:
        found = inspect.signature(each).parameters.values()
        names |= {parameter.name for parameter in found}
        if all(parameter.kind is not inspect.Parameter.VAR_KEYWORD for parameter in found):
            break
    return names


@functools.lru_cache(maxsize=8)
def open_torchvision(source: TorchvisionSet, split: str | None, *, download: bool) -> Any:
    """One split of a data set, or all of one that has none; raises LookupError if the class has no such split.

    Raises DataError if the data set is missing, damaged, or cannot be made with the configured arguments.
    """
    factory, chooses_by = source.factory(), source.chooses_by
    # torchvision lets every plugin of Pillow's try a file, and this one would run Ghostscript
    EpsImagePlugin.gs_binary = False
    known = _parameters(factory)
    arguments = dict(source.arguments)
    arguments |= {"root": str(source.folder)} if "root" in known else {}
    arguments |= {"download": download} if "download" in known else {}
    if chooses_by is not None:
        arguments[chooses_by] = split == "train" if chooses_by == "train" else split
    try:
        return factory(**arguments)
    except TypeError as error:
        raise DataError(f"{source.where}: {error}; set it in data.arguments") from None
    except Exception as error:  # of torchvision, the network, archives, and the libraries that read annotations
        if isinstance(error, ValueError) and str(error).startswith(_HAS_NOT):
            if chooses_by == "split" and "argument split" in str(error):
                raise LookupError(str(error)) from None
            raise DataError(f"{source.where}: {error} Set it in data.arguments") from None
        named = f", split {split!r}" if split else ""
        raise DataError(f"{source.where}{named}: {readable(error)}; {_remedy(split, download=download)}") from None


def _remedy(split: str | None, *, download: bool) -> str:
    place = "set data.path to the folder that torchvision fills" + ("" if download else ", or data.download=true")
    kind = "val" if split in VAL_NAMES else "test" if split in TEST_NAMES else None
    return place + (f"; data.{kind}_split=false does without this split" if kind else "")


def find_torchvision(config: TorchvisionData) -> FoundImages:
    """Take the splits as torchvision has them; a class without splits is a pool of images."""
    source, account = TorchvisionSet.of(config), Account()
    labels: list[int | None] = []
    files: list[str] = []
    splits: dict[str, Rows] = {}
    starts = []
    classes: dict[str, list[str]] = {}
    for split, name in _split_names(config, source, account).items():
        data = open_torchvision(source, name, download=config.download)
        where = f"{source.where}, split {name!r}" if name else source.where
        found, paths = labels_of(data, where=where, account=account), files_of(data)
        if name is None and paths:  # some classes list them in the order of the file system
            order = np.argsort(paths, kind="stable")
            found, paths = [found[row] for row in order], [paths[row] for row in order]
        starts.append((name or "", len(labels)))
        if name is not None:
            splits[split] = np.arange(len(labels), len(labels) + len(found))
            account.origins[split] = f"torchvision's split {name!r}"
        labels += found
        files += paths
        classes[where] = [_class_name(each) for each in getattr(data, "classes", ())]
    names = _agreed(classes)
    return FoundImages(
        FileReader(source.folder, Names.of(files))
        if len(files) == len(labels)
        else TorchvisionReader(source, tuple(starts)),
        Labels.of(labels),
        source.where,
        names or None,
        splits,
        account=account,
        label_from=f"the label that {config.name} gives",
    )


def _split_names(config: TorchvisionData, source: TorchvisionSet, account: Account) -> dict[str, str | None]:
    """The name of each split, None for a pool; raises DataError if a configured one is not there."""
    wanted = {split: getattr(config, f"{split}_split") for split in ("train", "val", "test")}
    if source.chooses_by is None:
        named = [split for split, name in wanted.items() if name]
        if named:
            raise DataError(f"{source.where}: the class has no splits; remove data.{named[0]}_split")
        return {"train": None}
    if source.chooses_by == "train":
        return _two_splits(wanted, source)
    train = _first(config, source, "train", TRAIN_NAMES)
    names = {"train": train, "val": None, "test": _first(config, source, "test", TEST_NAMES)}
    if wanted["val"]:
        names["val"] = _first(config, source, "val", (wanted["val"],))
    elif wanted["val"] is None and "trainval" in str(train):
        account.notes.append(
            f"torchvision's split {train!r} holds the images of a validation split: validation is split off from it by "
            "data.split_seed; data.val_split names another"
        )
    elif wanted["val"] is None:
        try:
            names["val"] = _first(config, source, "val", VAL_NAMES)
        except DataError as error:
            account.notes.append(
                f"validation is split off from training by data.split_seed, as it cannot be had: {error}"
            )
    return {split: name for split, name in names.items() if name is not None}


def _two_splits(wanted: Mapping[str, str | bool | None], source: TorchvisionSet) -> dict[str, str | None]:
    """The splits of a class that only knows whether it is for training."""
    for split, name in wanted.items():
        if name and (split == "val" or name != split):
            raise DataError(
                f"data.{split}_split {name!r}: {source.name} has the splits 'train' and 'test' alone; remove the key, "
                "and validation is split off from training"
            )
    return {"train": "train"} if wanted["test"] is False else {"train": "train", "test": "test"}


def _first(config: TorchvisionData, source: TorchvisionSet, split: str, usual: Sequence[str]) -> str | None:
    """The configured name of a split, or the first usual one that the class has; None if there is none."""
    wanted: str | bool | None = getattr(config, f"{split}_split")
    if wanted is False:
        return None
    reason = ""
    for name in (wanted,) if isinstance(wanted, str) else usual:
        try:
            open_torchvision(source, name, download=config.download)
        except LookupError as error:
            reason = str(error)
        else:
            return name
    if wanted is not None or split == "train":
        raise DataError(f"{source.where}: {reason} Set data.{split}_split to one of them")
    return None


def _class_name(name: Any) -> str:
    """A class's name; ImageNet's are several words for one."""
    return ", ".join(map(str, name)) if isinstance(name, tuple) else str(name)


def _agreed(classes: Mapping[str, list[str]]) -> list[str]:
    """The class names, which must be the same in every split: torchvision numbers the classes of each by itself."""
    (first, names), *others = classes.items()
    for where, own in others:
        if own != names:
            odd = sorted(set(names) ^ set(own)) or [one for one, other in zip(names, own, strict=True) if one != other]
            raise DataError(
                f"{where}: its classes are not those of {first}, so their numbers differ, first {odd[0]!r}; want the "
                "same classes in every split: add the missing class, or use data.kind=image_folder"
            )
    return names


def files_of(data: Any) -> list[str]:
    """The files of a data set, where its class lists them: torchvision decodes more than 8 bits to white."""
    for key in ("_image_files", "_images", "_samples", "samples", "imgs"):
        entries = getattr(data, key, None)
        if isinstance(entries, list) and len(entries) == len(data):
            found = [entry[0] if isinstance(entry, tuple) else entry for entry in entries]
            if all(isinstance(path, str | Path) for path in found):
                return [str(Path.cwd() / path) for path in found]
    return []


@dataclass(frozen=True, slots=True)
class TorchvisionReader:
    """Reads rows of a data set that is no list of files; the rows of one split follow those of another."""

    source: TorchvisionSet
    splits: tuple[tuple[str, int], ...]
    """Each split's name, empty for a pool, and its first row."""

    def read(self, rows: Sequence[int]) -> list[Picture]:
        """The decoded pictures."""
        pictures: list[Picture] = []
        for row in rows:
            split, start = split_of(row, self.splits)
            data = open_torchvision(self.source, split or None, download=False)
            try:
                pictures.append(data[int(row - start)][0])
            except Exception as error:  # it decodes, and Pillow's plugins raise errors of any type
                pictures.append(OSError(readable(error)))
        return pictures

    def name(self, row: int) -> str:
        """The data set and the row."""
        return f"{self.source.name}[{row}]"
