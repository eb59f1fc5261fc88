"""The files of a folder at a URL, whether hardray wrote it there or somebody copied plain files."""

from __future__ import annotations

import json
from dataclasses import dataclass

from hard_ray.errors import MissingObjectError
from hard_ray.storage import objects
from hard_ray.storage.address import Remote
from hard_ray.storage.mirror import MANIFEST, Mirror


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
    if _is_mirror(remote):
        entries = Mirror.of(remote).files()
        return {name: StoredFile(remote / entry.key(name), entry.size, entry.sha256) for name, entry in entries.items()}
    found = objects.listing(remote)
    return {each.key: StoredFile(remote / each.key, each.size, each.version) for each in found if each.key}


def _is_mirror(remote: Remote) -> bool:
    """Whether the manifest at a URL is that of a mirror; a copied folder may have a file of this name."""
    try:
        text = json.loads(objects.read(remote / MANIFEST))
    except (MissingObjectError, ValueError):
        return False
    return isinstance(text, dict) and "serial" in text
