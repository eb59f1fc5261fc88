"""NumPy's archives of arrays, as they may come from anybody."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 2**30
"""Bytes of all arrays of an archive together, as they are in memory."""


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Every array by its name.

    Raises:
        ValueError: damaged, of objects, or larger than `LARGEST` once it is unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > LARGEST:
            raise ValueError(f"it unpacks to {size:,} bytes, more than {LARGEST:,}")
        with np.load(path, allow_pickle=False) as stored:
            return {name: np.asarray(stored[name]) for name in stored.files}
    except (OSError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
