"""Weights at a URL as local files: of a part of a run, of a folder, or of one object."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from hard_ray.errors import MissingObjectError
from hard_ray.files import cache_folder, replacing_folder
from hard_ray.storage import objects
from hard_ray.storage.address import Remote, is_url
from hard_ray.storage.cache import download
from hard_ray.storage.mirror import Mirror


def fetch(remote: Remote) -> Path:
    """The file or folder of a URL, brought to this machine unless it is there as it is now.

    Raises:
        StorageError: it cannot be read; MissingObjectError: there is nothing of this name.
    """
    try:
        mirror, inside = Mirror.find(remote)
    except MissingObjectError:
        return _plain(remote)
    mirror.pull(lambda name: not inside or name == inside or name.startswith(f"{inside}/"))
    path = mirror.folder / inside
    if not path.exists():
        raise MissingObjectError(f"{remote.shown} is no part of the run {mirror.remote.shown}; check the name")
    return path


fetched = functools.lru_cache(maxsize=16)(fetch)
"""As `fetch`, for weights: the URL is looked at once a process."""


def local_model(name: str) -> str:
    """A model's name with a folder of this machine in the place of a URL's, as in `local-dir:s3://bucket/tower`.

    Raises StorageError if the folder cannot be brought to this machine.
    """
    source, _, place = name.partition(":")
    return f"{source}:{fetched(Remote.parse(place))}" if source == "local-dir" and is_url(place) else name


def _plain(remote: Remote) -> Path:
    """Objects that no run wrote, in a folder of the cache that is named by what the listing says of them."""
    found = objects.listing(remote)
    said = "\n".join([str(remote), *(f"{each.key} {each.version}" for each in found)])
    folder = cache_folder() / "fetched" / hashlib.sha256(said.encode()).hexdigest()[:32]
    is_file = [each.key for each in found] == [""]
    if not folder.exists():
        with replacing_folder(folder) as temporary:
            for each in found:
                path = temporary / (remote.name if is_file else each.key)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
                download(remote / each.key if each.key else remote, each.size, path)
    return folder / remote.name if is_file else folder
