"""Folders of images without labels, of any depth."""

from __future__ import annotations

from pathlib import Path

from hard_ray.data.account import Account
from hard_ray.data.index import FoundImages
from hard_ray.data.labels import Labels
from hard_ray.data.layout import IMAGE_SUFFIXES, some
from hard_ray.data.listing import all_below, each_once, folders_in, list_images
from hard_ray.data.readers import reader_of_files
from hard_ray.data.remote_folders import list_root
from hard_ray.data.sources.image_folder import refuse_broken
from hard_ray.data.split_names import whole_kind
from hard_ray.errors import DataError
from hard_ray.storage.address import Remote
from hard_ray.storage.cache import ObjectCache


def find_images(path: Path | Remote, max_bad_fraction: float, cache: ObjectCache) -> FoundImages:
    """List the images below a folder, sorted by path, as one pool.

    Raises DataError if there are none, or too many links lead nowhere.
    """
    root = list_root(path)
    account = Account()
    images = each_once(list_images(root, account.files), lambda _: "the pool", account.files)
    refuse_broken(root, account, len(images), max_bad_fraction)
    if not images:
        raise DataError(
            f"data.path {root}: holds no image{account.files.seen}; want files that end in "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}, in folders of any depth"
        )
    account.files.used = len(images)
    said = {name: kind for name in folders_in(root) if (kind := whole_kind(name)) is not None}
    named = sorted(said, key=lambda name: said[name] != "train")
    if len(named) > 1:
        account.notes.append(
            f"{some(named)} in {root} are named as splits, and their images are one pool; set data.path to "
            f"{root}/{named[0]} for that one alone"
        )
    paths = all_below(images, root)
    reader, labels = reader_of_files(root, paths, cache), Labels.none(len(images))
    return FoundImages(reader, labels, root, account=account, has_labels=False)
