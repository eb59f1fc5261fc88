"""Weights at a URL as local files: of a part of a run, of a folder, or of one object."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path, PurePosixPath

from hard_ray.errors import DeniedError, MissingObjectError, StorageError
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
    return _brought(remote, _mirror_of(remote))


def fetch_file(remote: Remote) -> Path:
    """As `fetch`, for a single file; StorageError: a folder is at the URL, of which nothing is brought."""
    found = _mirror_of(remote)
    if found is None:
        is_folder = objects.stat(remote) is None and bool(objects.listing(remote))
    else:
        mirror, inside = found
        is_folder = not inside or any(name.startswith(f"{inside}/") for name in mirror.files())
    if is_folder:
        raise StorageError(f"{remote.shown} is a folder; name a file in it")
    return _brought(remote, found)


def _mirror_of(remote: Remote) -> tuple[Mirror, str] | None:
    """The mirror that holds an address, with its name in it; None: no run wrote it, or none that may be seen."""
    try:
        return Mirror.find(remote)
    except (MissingObjectError, DeniedError):  # a right to the object alone shows no manifest
        return None


def _brought(remote: Remote, found: tuple[Mirror, str] | None) -> Path:
    if found is None:
        return _plain(remote)
    mirror, inside = found
    mirror.pull(lambda name: not inside or name == inside or name.startswith(f"{inside}/"))
    path = mirror.folder / inside
    if not path.exists():
        raise MissingObjectError(f"{remote.shown} is no part of the run {mirror.remote.shown}; check the name")
    return path


def local_file(path: str | Path | Remote) -> Path:
    """A file on this machine, brought here if it is at a URL; StorageError: the URL has no such file."""
    if isinstance(path, Remote) or is_url(path):
        return fetch_file(path if isinstance(path, Remote) else Remote.parse(path))
    return Path(path)


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
    try:
        found = objects.listing(remote)
    except DeniedError:
        one = objects.stat(remote)
        if one is None:
            raise
        found = [one]
    said = "\n".join([str(remote), *(f"{each.key} {each.version}" for each in found)])
    folder = cache_folder() / "fetched" / hashlib.sha256(said.encode()).hexdigest()[:32]
    is_file = [each.key for each in found] == [""]
    if not folder.exists():
        try:
            with replacing_folder(folder) as temporary:
                for each in found:
                    if ".." in PurePosixPath(each.key).parts:
                        raise StorageError(f"{remote.shown} has an object outside its folder: {each.key!r}; remove it")
                    path = temporary / (remote.name if is_file else each.key)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.touch()
                    download(remote / each.key if each.key else remote, each.size, path)
        except OSError as error:
            if not folder.is_dir():  # else another process was faster
                raise StorageError(
                    f"{remote.shown} cannot be kept in {folder.parent} ({error.strerror}); make room there, or set "
                    "HARDRAY_CACHE to another folder"
                ) from None
    return folder / remote.name if is_file else folder
