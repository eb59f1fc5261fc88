"""Folders of images: one for each class, within one for each split."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hard_ray.config.data import ImageFolderData
from hard_ray.data.account import Account
from hard_ray.data.index import FoundImages, Rows, SplitName
from hard_ray.data.labels import Labels
from hard_ray.data.layout import IMAGE_SUFFIXES, some
from hard_ray.data.listing import BROKEN, Listed, all_below, each_once, folders_in, list_images, tally_files_in
from hard_ray.data.readers import reader_of_files
from hard_ray.data.remote_folders import list_root
from hard_ray.data.sources.split_folders import class_name, find_split_folders
from hard_ray.data.split_names import refuse_splits_in
from hard_ray.errors import DataError
from hard_ray.storage.cache import ObjectCache


def find_image_folder(config: ImageFolderData, cache: ObjectCache) -> FoundImages:
    """List the images of every class folder, sorted; without split folders they are one pool.

    Raises DataError if there are none, a class or split cannot be told, or one file has two labels or splits.
    """
    root = list_root(config.place)
    account = Account()
    splits = find_split_folders(config, root, account)
    listing = _Listing(root, account)
    for split, folder in splits.folders.items():
        listing.add(split, folder)
    listing.keep_each_once()
    listing.refuse_empty()
    listing.refuse_broken(config.max_bad_fraction)
    if splits.is_pool and config.train_split is not False:
        refuse_splits_in((Path(image.path).name for image in listing.images), where=f"data.path {root}")
    listing.note_classes()
    return listing.found(cache, is_pool=splits.is_pool)


@dataclass(slots=True)
class _Listing:
    """The images of the splits so far."""

    root: str
    account: Account
    classes: list[str] = field(default_factory=list)
    """Those of the training split, sorted."""
    images: list[Listed] = field(default_factory=list)
    class_of: list[str] = field(default_factory=list)
    split_of: list[SplitName] = field(default_factory=list)
    splits: list[SplitName] = field(default_factory=list)
    """Those that were added."""

    def add(self, split: SplitName, folder: str) -> None:
        """List a split; the training split comes first and has all classes."""
        tally_files_in(folder, self.account.files, "in no class folder")
        self.splits.append(split)
        folders = self._by_class(folder)
        if split == "train":
            self.classes = sorted(folders)
        for name, paths in folders.items():
            if name not in self.classes:
                raise DataError(f"{paths[0]}: {self._no_class(name, split)}")
        for name in self.classes:
            images = [image for path in folders.get(name, ()) for image in list_images(path, self.account.files)]
            images.sort(key=lambda image: image.path)
            self.images += images
            self.class_of += [name] * len(images)
            self.split_of += [split] * len(images)

    def _by_class(self, folder: str) -> dict[str, list[str]]:
        """The folders of each class; two that differ in Unicode's form only are one class."""
        found: dict[str, list[str]] = {}
        for name in folders_in(folder):
            found.setdefault(class_name(name), []).append(f"{folder}/{name}")
        for name, paths in found.items():
            if len(paths) > 1:
                self.account.notes.append(f"{len(paths)} folders in {folder} are one class, {name!r}, in Unicode")
        return found

    def _no_class(self, name: str, split: SplitName) -> str:
        near = [each for each in self.classes if _alike(each) == _alike(name)]
        hint = f", and {near[0]!r}, which differs in case or spaces, is another" if near else ""
        return (
            f"the training split has no class {name!r}; it has {some(self.classes)}{hint}; rename the folder, move it "
            f"away, or set data.{split}_split=false"
        )

    def keep_each_once(self) -> None:
        """Keep each real file once; raises DataError if one has two classes, or lies in two splits."""
        number_of: dict[str, int] = {}

        def place(path: str) -> str:
            if not number_of:  # few data sets have links, and a million paths take their time
                number_of.update((image.path, number) for number, image in enumerate(self.images))
            number = number_of[path]
            return f"class {self.class_of[number]!r} of the {self.split_of[number]} split"

        once = each_once(self.images, place, self.account.files)
        if len(once) == len(self.images):
            return
        kept = {image.path for image in once}
        chosen = [number for number, image in enumerate(self.images) if image.path in kept]
        self.images = [self.images[number] for number in chosen]
        self.class_of = [self.class_of[number] for number in chosen]
        self.split_of = [self.split_of[number] for number in chosen]

    def refuse_empty(self) -> None:
        """Raise DataError if there is no class folder, or no image in any."""
        name, seen = Path(self.root).name, self.account.files.seen
        if not self.classes:
            raise DataError(
                f"data.path {self.root}: holds no class folders{seen}; want {name}/train/CLASS/IMAGE.jpg or "
                f"{name}/CLASS/IMAGE.jpg, or data.kind=images for images without labels"
            )
        if not self.images:
            reasons = "; ".join(f"{entry.count:,} {reason}" for reason, entry in self.account.files.left_out.items())
            raise DataError(
                f"data.path {self.root}: {len(self.classes)} class folders, but no image in them{seen}; "
                f"want files that end in {', '.join(sorted(IMAGE_SUFFIXES))}"
                + (f"; left out: {reasons}" if reasons else "")
            )

    def refuse_broken(self, most: float) -> None:
        """Raise DataError if more than this share of the images are links that lead nowhere."""
        refuse_broken(self.root, self.account, len(self.images), most)

    def note_classes(self) -> None:
        """Note classes whose names are easily confused."""
        alike: dict[str, list[str]] = {}
        for name in self.classes:
            alike.setdefault(_alike(name), []).append(name)
        self.account.notes += [
            f"{some(names)} differ in case or spaces alone and are {len(names)} classes; rename them if they are one"
            for names in alike.values()
            if len(names) > 1
        ]

    def found(self, cache: ObjectCache, *, is_pool: bool) -> FoundImages:
        """The images with their labels and splits."""
        self.account.files.used = len(self.images)
        number = {name: position for position, name in enumerate(self.classes)}
        numbers = np.fromiter((number[name] for name in self.class_of), dtype=np.int64, count=len(self.class_of))
        paths = all_below(self.images, self.root)
        reader = reader_of_files(self.root, paths, cache)
        split_of = np.array(self.split_of)
        splits: dict[str, Rows] = {}
        if not is_pool:
            splits = {split: np.flatnonzero(split_of == split).astype(np.int64) for split in self.splits}
        return FoundImages(reader, Labels.of(numbers), self.root, self.classes, splits, account=self.account)


def refuse_broken(root: str, account: Account, images: int, most: float) -> None:
    """Raise DataError if more than the share `most` of the images below a folder are links that lead nowhere."""
    broken = account.files.left_out.get(BROKEN)
    if broken is not None and broken.count > most * (broken.count + images):
        raise DataError(
            f"data.path {root}: {broken.count:,} links lead nowhere beside {images:,} images, first "
            f"{broken.example}; fetch what they lead to (`git annex get`, a mounted disk), or raise "
            "data.max_bad_fraction"
        )


def _alike(name: str) -> str:
    """What is equal for names that differ in case or spaces alone."""
    return " ".join(name.split()).casefold()
