"""Text files of class names."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from hard_ray.errors import ModelError
from hard_ray.files import read_text
from hard_ray.storage.address import Remote
from hard_ray.storage.fetched import local_file


def read_names(path: str | Path | Remote, what: str) -> tuple[str, ...]:
    """Read class names in the order of the outputs, one per line.

    Raises:
        ModelError: the file, which messages call `what`, cannot be read or holds a duplicate.
        StorageError: it is at a URL, which has no such file.
    """
    here = local_file(path)
    try:
        lines = read_text(here).splitlines()
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{what} {path}: cannot be read ({getattr(error, 'strerror', None) or error}); want a text file with a "
            "class name on each line; name another file, or save it as UTF-8"
        ) from None
    names = tuple(unicodedata.normalize("NFC", line.strip()) for line in lines if line.strip())
    if not names:
        raise ModelError(f"{what} {path}: names no class; want a class name on each line; name another file")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ModelError(f"{what} {path}: the class {twice[0]!r} is a duplicate; name each class once")
    return names
