"""MNIST's idx format (LeCun, Cortes and Burges 1998): a magic number, the shape, the bytes."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hard_ray.config.data import IdxData
from hard_ray.data.index import FoundImages
from hard_ray.data.labels import Labels
from hard_ray.data.layout import require_folder
from hard_ray.data.readers import ArrayReader
from hard_ray.errors import DataError

_UNSIGNED_BYTE = 8
_GZIP = b"\x1f\x8b"
_LARGEST = 2**31
"""Largest array that is read into memory, in bytes."""


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An array of unsigned bytes, gzipped or not; raises DataError unless it is one, of its header's size."""
    try:
        with _opened(path) as stream:
            zero, kind, dimensions = struct.unpack(">HBB", stream.read(4))
            shape = struct.unpack(f">{dimensions}I", stream.read(4 * dimensions))
            size = math.prod(shape)
            if zero or kind != _UNSIGNED_BYTE or size > _LARGEST:
                raise _broken(path, f"not an idx file of unsigned bytes, or of more than {_LARGEST:,}: {shape}")
            # one byte more than expected is enough to notice a file that unpacks to far more
            raw = stream.read(size + 1)
    except (OSError, EOFError, struct.error, zlib.error) as error:
        raise _broken(path, f"not an idx file ({error})") from None
    if len(raw) != size:
        raise _broken(path, f"not an idx file of unsigned bytes of shape {shape}: it holds another number")
    try:
        return np.frombuffer(raw, dtype=np.uint8).reshape(shape)
    except ValueError as error:  # more dimensions than NumPy has, or huge ones beside one of 0
        raise _broken(path, f"not an idx file ({error})") from None


def _opened(path: Path) -> Any:
    """The file's content, unpacked if it is gzipped, whatever its name says."""
    with path.open("rb") as stream:
        is_packed = stream.read(2) == _GZIP
    return gzip.open(path) if is_packed else path.open("rb")


def _broken(path: Path, what: str) -> DataError:
    return DataError(f"{path}: {what}; want a file in MNIST's format; download it again, or set data.path to another")


def find_idx(config: IdxData) -> FoundImages:
    """Read the four files; the `t10k` pair is the test split."""
    folder = require_folder(config.path)
    images, labels = [], []
    for prefix in ("train", "t10k"):
        images.append(_read(_find(folder, f"{prefix}-images-idx3-ubyte"), dimensions=3))
        labels.append(_read(_find(folder, f"{prefix}-labels-idx1-ubyte"), dimensions=1))
        if images[-1].shape[1:] != images[0].shape[1:]:
            raise DataError(
                f"{folder}: the t10k images have {_size(images[-1])} pixels, and the train images {_size(images[0])}; "
                "want four files of one data set"
            )
        if len(images[-1]) != len(labels[-1]):
            raise DataError(
                f"{folder}: {len(images[-1])} {prefix} images, but {len(labels[-1])} labels; want a label for each: "
                "put the two files of one data set there"
            )
    every_label = Labels.of(np.concatenate(labels))
    rows = np.arange(len(every_label))
    splits = {"train": rows[: len(labels[0])], "test": rows[len(labels[0]) :]}
    where = str(folder)
    return FoundImages(ArrayReader(np.concatenate(images), where), every_label, where, splits=splits)


def _read(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    """The array of a file, which must have so many dimensions and not be empty."""
    found = read_idx(path)
    if found.ndim != dimensions or not found.size:
        raise DataError(
            f"{path}: has the shape {found.shape}; want {dimensions} dimensions, and none of them 0; put the "
            f"{'images' if dimensions == 3 else 'labels'} there"
        )
    return found


def _size(images: NDArray[np.uint8]) -> str:
    return " x ".join(str(length) for length in images.shape[1:])


def _find(folder: Path, name: str) -> Path:
    """The file of this name, or of the name that some archives give it: `train-images.idx3-ubyte`."""
    names = [form + suffix for form in (name, name.replace("-idx", ".idx")) for suffix in ("", ".gz")]
    for candidate in names:
        if (folder / candidate).is_file():
            return folder / candidate
    raise DataError(f"data.path {folder}: lacks {name} (or {', '.join(names[1:])}); put it there, or set data.path")
