"""The files of a folder at a URL, whether hardray wrote it there or somebody copied plain files."""

from __future__ import annotations

from dataclasses import dataclass

from hard_ray.storage import objects
from hard_ray.storage.address import Remote
from hard_ray.storage.mirror import Mirror


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of such a folder."""

    remote: Remote
    size: int
    """In bytes."""
    version: str
    """Another version is another content."""


def files_at(remote: Remote) -> dict[str, StoredFile]:
    """The files of a folder at a URL, by name; StorageError: it cannot be read, or nothing is there."""
    mirror = Mirror.of(remote)
    if mirror.is_found():
        entries = mirror.files()
        return {name: StoredFile(remote / entry.key(name), entry.size, entry.sha256) for name, entry in entries.items()}
    found = objects.listing(remote)
    return {each.key: StoredFile(remote / each.key, each.size, each.version) for each in found if each.key}
