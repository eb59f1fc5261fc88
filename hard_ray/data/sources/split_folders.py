"""Split folders of an image folder: which folders are splits, which are classes, and where they begin."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hard_ray.config.data import ImageFolderData
from hard_ray.data.account import Account
from hard_ray.data.index import SplitName
from hard_ray.data.layout import some, suffix_of
from hard_ray.data.listing import (
    folders_in,
    holds_image,
    holds_image_itself,
    list_images,
    scan,
    tally_below,
    tally_files_in,
)
from hard_ray.data.split_names import EXTRA_WORDS, NEUTRAL_WORDS, WORDS, choose_splits, kinds_in, whole_kind, words_of
from hard_ray.errors import DataError

LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".mat", ".lst")
MOST_LEVELS = 8
"""Folders between `data.path` and the splits or classes, at most."""


@dataclass(frozen=True, slots=True)
class SplitFolders:
    """The folder of each split; the training split's alone if the images are one pool."""

    folders: Mapping[SplitName, str]
    is_pool: bool


def find_split_folders(config: ImageFolderData, root: str, account: Account) -> SplitFolders:
    """The split folders of a root, or of the only folder with images below it; all else is entered in the account.

    Folders that hold images themselves are classes, whatever their names, unless all of them are named as splits.

    Raises DataError if a split cannot be told, or validation images have no labels.
    """
    base = root
    for _ in range(MOST_LEVELS):
        level = _Level.of(base)
        kinds = level.kinds(config, account)
        if kinds is not None:
            return _chosen(config, level, kinds, account)
        only = level.only_way_down()
        if only is None:
            break
        level.tally_others([only], account)
        base = f"{base}/{only}"
        account.notes.append(f"all images lie below {base}, so classes or splits are looked for there")
    _refuse_splits_below(_Level.of(base))
    why = "data.train_split is false" if config.train_split is False else f"no folder in {base} says a split"
    account.notes.append(f"{why}: all images are one pool, which is split by data.split_seed")
    _note_signs_of_splits(root, base, account)
    return SplitFolders({"train": base}, is_pool=True)


def _note_signs_of_splits(root: str, base: str, account: Account) -> None:
    """Note what lets a pool look like a part of more: a root that is a split itself, and files that list splits."""
    above = root.rpartition("/")[0] or "/"
    beside = [name for name in folders_in(above) if whole_kind(name) is not None]
    if whole_kind(Path(root).name) is not None and len(beside) > 1:
        account.notes.append(
            f"data.path is the folder of one split beside {some(beside)}; set it to {above} to use them all"
        )
    places = {root, base, *(f"{each}/{name}" for each in (root, base) for name in folders_in(each))}
    lists = [
        entry.path
        for place in sorted(places)
        for entry in scan(place)
        if suffix_of(entry.name) in LIST_SUFFIXES and kinds_in(Path(entry.name).stem)
    ]
    if lists:
        account.notes.append(
            f"{some(lists)} may list splits; such files are not read: move the images to train/CLASS/ and test/CLASS/"
        )


def _refuse_splits_below(level: _Level) -> None:
    """Raise DataError if folders that would be classes hold splits: several data sets, or splits within classes."""
    for name in level.filled:
        below = folders_in(f"{level.path}/{name}")
        kinds = {whole_kind(each) for each in below}
        if "train" in kinds and kinds & {"val", "test"}:
            raise DataError(
                f"data.path {level.path}: {len(level.filled)} folders hold images, and {name!r} holds {some(below)}, "
                f"which are splits; set data.path to {level.path}/{name} if it is the data set, or move the images to "
                "SPLIT/CLASS/IMAGE if it is a class"
            )


def class_name(folder: str) -> str:
    """The class that a folder is named after: Unicode's composed form, as file systems store either form."""
    return unicodedata.normalize("NFC", folder)


@dataclass(frozen=True, slots=True)
class _Level:
    """The folders in one folder."""

    path: str
    names: list[str]
    filled: list[str]
    """Those with an image somewhere below."""
    flat: list[str] = field(default_factory=list)
    """Those with an image directly in them."""

    @staticmethod
    def of(path: str) -> _Level:
        names = folders_in(path)
        filled = [name for name in names if holds_image(f"{path}/{name}")]
        flat = [name for name in filled if holds_image_itself(f"{path}/{name}")]
        return _Level(path, names, filled, flat)

    def kinds(self, config: ImageFolderData, account: Account) -> dict[str, SplitName | None] | None:
        """The split that each folder's name says; None if the folders are no splits."""
        if config.train_split is False:
            return None
        given = (config.train_split, config.val_split, config.test_split)
        configured = {name for name in given if isinstance(name, str)} - {"train"}
        known: dict[str, SplitName] = {name: kind for name in self.names if (kind := whole_kind(name)) is not None}
        others = [name for name in self.filled if name not in known]
        if configured and (configured & set(self.names) or self.only_way_down() is None):
            return {**dict.fromkeys((*others, *(configured & set(self.names)))), **known}
        if not known:
            return self._partly_named()
        if set(known) <= set(self.flat) and set(others) & set(self.flat):
            account.notes.append(
                f"{some(sorted(known))} in {self.path} hold images themselves, as {others[0]!r} does: they are taken "
                "for classes, not for splits"
            )
            return None
        return {**known, **dict.fromkeys(others)}

    def _partly_named(self) -> dict[str, SplitName | None] | None:
        """Kinds of names as `seg_train` and `seg_test`: splits where both are there and hold folders of images."""
        said = {name: kinds_in(name) for name in self.filled}
        deep = [said[name] for name in self.filled if name not in self.flat]
        if {"train"} not in deep or not ({"val"} in deep or {"test"} in deep):
            return None
        return {name: next(iter(kinds)) if len(kinds) == 1 else None for name, kinds in said.items()}

    def only_way_down(self) -> str | None:
        """The only folder with images, if these lie deeper; None if there is no such folder."""
        if len(self.filled) != 1 or self.flat or holds_image_itself(self.path):
            return None
        return self.filled[0]

    def tally_others(self, used: Iterable[str], account: Account, reasons: Mapping[str, str] | None = None) -> None:
        """Enter the files of this level, and of the folders that are not used, as left out."""
        tally_files_in(self.path, account.files, "in no class folder")
        for name in self.names:
            if name not in set(used):
                reason = (reasons or {}).get(name, "in a folder that is no split")
                tally_below(f"{self.path}/{name}", account.files, reason)


def _chosen(
    config: ImageFolderData, level: _Level, kinds: Mapping[str, SplitName | None], account: Account
) -> SplitFolders:
    choice = choose_splits(config, kinds, where=f"data.path {level.path}")
    account.notes += choice.notes
    level.tally_others(choice.splits.values(), account, choice.unused)
    folders: dict[SplitName, str] = {}
    classes: frozenset[str] = frozenset()
    for split, name in choice.splits.items():
        folder = _lowered(f"{level.path}/{name}", classes, account)
        if split == "train":
            classes = frozenset(class_name(each) for each in folders_in(folder))
        elif classes and not _has_labels(folder, classes):
            _leave_out_unlabelled(config, split, folder, account)
            continue
        folders[split] = folder
        account.origins[split] = f"folder {folder}"
    return SplitFolders(folders, is_pool=False)


def _lowered(folder: str, classes: frozenset[str], account: Account) -> str:
    """The folder of the class folders: below `train/images/` or `seg_train/seg_train/`, that one."""
    level = _Level.of(folder)
    only = level.only_way_down()
    if only is None or class_name(only) in classes:
        return folder
    level.tally_others([only], account)
    account.notes.append(f"all images of {folder} lie below {only}, so classes are looked for there")
    return f"{folder}/{only}"


def _has_labels(folder: str, classes: frozenset[str]) -> bool:
    """Whether a split has class folders; images in the folder itself, or in one as `images/`, have no labels."""
    level = _Level.of(folder)
    if {class_name(name) for name in level.names} & classes:
        return True
    return not (holds_image_itself(folder) or (len(level.filled) == 1 and _is_no_class(level.filled[0], classes)))


def _is_no_class(name: str, classes: frozenset[str]) -> bool:
    """Whether a folder's name is as good as none: `images`, `unknown`, `test`, or a number where classes are words."""
    words = words_of(name)
    no_class = NEUTRAL_WORDS | EXTRA_WORDS | WORDS.keys() | {"all", "unknown", "jpegimages", "jpeg", "png", "flat"}
    return all(word in no_class for word in words) and (bool(words) or any(words_of(each) for each in classes))


def _leave_out_unlabelled(config: ImageFolderData, split: SplitName, folder: str, account: Account) -> None:
    """Enter a test split without labels as left out; raises DataError for a validation split, or a configured one."""
    count = len(list_images(folder, type(account.files)()))
    what = f"{folder}: its {count:,} images have no labels, as they lie in no folder of a class of the training split"
    if split == "val" or config.test_split is not None:
        otherwise = "to split validation off from the training split" if split == "val" else "to do without it"
        raise DataError(
            f"{what}; want {Path(folder).name}/CLASS/IMAGE: sort them into class folders, or set "
            f"data.{split}_split=false {otherwise}"
        )
    tally_below(folder, account.files, "the test split has no labels")
    account.notes.append(f"{what}: there is no test split, and the student is measured on val")
