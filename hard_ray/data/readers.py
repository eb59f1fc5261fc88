"""Readers of a data set's rows, as encoded bytes or pixels: one class per way of storing them.

A reader is small enough to be sent to every process of a cluster, and opens files only when it reads.
"""

from __future__ import annotations

import functools
import io
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from hard_ray.data.cells import bytes_of
from hard_ray.data.mapped import Names
from hard_ray.data.remote_folders import ShardFile, folder_of, is_remote
from hard_ray.data.safe_parquet import open_parquet, read_parquet
from hard_ray.errors import MissingObjectError
from hard_ray.storage.address import Remote
from hard_ray.storage.cache import ObjectCache
from hard_ray.storage.objects import THREADS

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "JPEG2000", "AVIF")
"""The formats that Pillow may decode, whatever a file is called. EPS is left out: its plugin runs Ghostscript."""
LARGEST_FILE = 256 * 2**20
"""Largest encoded image, in bytes."""

Picture = bytes | NDArray[np.uint8] | Image.Image | OSError
"""Encoded bytes, pixels (height, width[, 3]), a decoded picture, or the error that prevented reading it."""


class Reader(Protocol):
    """Reads the pictures of rows, and names rows in messages."""

    def read(self, rows: Sequence[int]) -> list[Picture]:
        """The pictures of `rows`, in their order."""

    def name(self, row: int) -> str:
        """The origin of a row: a path, or a file and a position in it."""


@dataclass(frozen=True, slots=True)
class ArrayReader:
    """Pixels in memory, shape (rows, height, width)."""

    pixels: NDArray[np.uint8]
    label: str

    def read(self, rows: Sequence[int]) -> list[Picture]:
        """Views into the array."""
        return [self.pixels[row] for row in rows]

    def name(self, row: int) -> str:
        """The array's label and the row."""
        return f"{self.label}[{row}]"


@dataclass(frozen=True, slots=True)
class FileReader:
    """One file per image."""

    root: Path
    paths: Names
    """Relative to the root."""

    def read(self, rows: Sequence[int]) -> list[Picture]:
        """The files' bytes."""
        return [read_file(self.root / self.paths[row]) for row in rows]

    def name(self, row: int) -> str:
        """The file's path."""
        return str(self.root / self.paths[row])

    def every_path(self) -> list[str]:
        """The path of each row."""
        return [f"{self.root}/{path}" for path in self.paths]


@dataclass(frozen=True, slots=True)
class ObjectReader:
    """One object of a bucket per image, many of them read at a time, from copies in the node's cache."""

    root: Remote
    paths: Names
    """Relative to the root."""
    sizes: NDArray[np.int64]
    """In bytes."""
    versions: Names
    """Of the listing."""
    cache: ObjectCache

    def read(self, rows: Sequence[int]) -> list[Picture]:
        """The objects' bytes; raises StorageError if the bucket cannot be read, which is no fault of an image."""
        if len(rows) == 1:
            return [self._read(rows[0])]
        with ThreadPoolExecutor(min(len(rows), THREADS)) as pool:
            return list(pool.map(self._read, rows))

    def _read(self, row: int) -> Picture:
        size = int(self.sizes[row])
        if size > LARGEST_FILE:
            return _too_large(size)
        try:
            with self.cache.open(self.root / self.paths[row], size, self.versions[row]) as stream:
                return stream.read()
        except MissingObjectError as error:
            return OSError(str(error))

    def name(self, row: int) -> str:
        """The object's address."""
        return f"{self.root.shown.rstrip('/')}/{self.paths[row]}"

    def every_path(self) -> list[str]:
        """The address of each row."""
        return [self.name(row) for row in range(len(self.paths))]


def reader_of_files(root: str, paths: Sequence[str], cache: ObjectCache) -> FileReader | ObjectReader:
    """The reader of images below a root that was listed."""
    folder = folder_of(root) if is_remote(root) else None
    if folder is None:
        return FileReader(Path(root), Names.of(paths))
    entries = [folder.entry(f"{root}/{path}") for path in paths]
    sizes = np.array([entry.size for entry in entries], dtype=np.int64)
    versions = Names.of([entry.version for entry in entries])
    return ObjectReader(folder.remote, Names.of(paths), sizes, versions, cache)


@dataclass(frozen=True, slots=True)
class ParquetReader:
    """Rows of Parquet files, read by row group."""

    files: tuple[ShardFile, ...]
    group_file: NDArray[np.int64]
    """The file of each row group."""
    group_index: NDArray[np.int64]
    """The number of each row group in its file."""
    group_start: NDArray[np.int64]
    """The first row of each row group, and at the end the number of rows."""
    column: str
    kept: NDArray[np.int64] | None = None
    """Where rows are left out: the place of each row among all of the files."""

    @classmethod
    def of(
        cls,
        files: Sequence[ShardFile],
        group_rows: Sequence[NDArray[np.int64] | Sequence[int]],
        column: str,
        *,
        kept: NDArray[np.bool_] | None = None,
    ) -> ParquetReader:
        """A reader of `files`; `group_rows` holds the sizes of each file's row groups.

        `kept` says which of their rows are used; None: all.
        """
        counts = [len(rows) for rows in group_rows]
        return cls(
            tuple(files),
            np.repeat(np.arange(len(files)), counts),
            np.concatenate([np.arange(count) for count in counts]).astype(np.int64),
            np.concatenate([[0], np.cumsum(np.concatenate(group_rows))]).astype(np.int64),
            column,
            None if kept is None or kept.all() else np.flatnonzero(kept),
        )

    def read(self, rows: Sequence[int]) -> list[Picture]:
        """The encoded bytes; each row group is read once, and an error in it is the picture of all its rows."""
        wanted = self._places(rows)

        def of_group(group: int, positions: NDArray[np.int64]) -> list[Picture]:
            values = _read_row_group(self.files[self.group_file[group]], int(self.group_index[group]), self.column)
            return [encoded(values[int(row - self.group_start[group])].as_py()) for row in wanted[positions]]

        return _read_together(np.searchsorted(self.group_start, wanted, side="right") - 1, of_group)

    def name(self, row: int) -> str:
        """The file, the row group and the row in it."""
        (place,) = self._places([row])
        group = int(np.searchsorted(self.group_start, place, side="right") - 1)
        path = self.files[self.group_file[group]]
        return f"{path}[group {self.group_index[group]}, row {place - self.group_start[group]}]"

    def _places(self, rows: Sequence[int]) -> NDArray[np.int64]:
        """Places of rows among all of the files."""
        wanted = np.asarray(rows, dtype=np.int64)
        return wanted if self.kept is None else self.kept[wanted]


def _read_together(
    places: NDArray[np.integer[Any]], read: Callable[[int, NDArray[np.int64]], list[Picture]]
) -> list[Picture]:
    """Pictures in the order of `places` (files or row groups): each place is read once, or its rows get its error."""
    pictures: list[Picture] = [OSError("not read")] * len(places)
    for place in np.unique(places):
        positions = np.flatnonzero(places == place)
        try:
            found = read(int(place), positions)
        except OSError as error:
            found = [error] * len(positions)
        for position, picture in zip(positions, found, strict=True):
            pictures[position] = picture
    return pictures


@functools.lru_cache(maxsize=8)
def _read_row_group(path: ShardFile, group: int, column: str) -> pa.ChunkedArray:
    local = path if isinstance(path, Path) else path.local_copy()  # None: the cache has no room for all of it
    return read_parquet(open_parquet(path if local is None else local), [column], group).column(column)


def encoded(cell: Any) -> Picture:
    """The bytes in a cell, which is binary or Hugging Face's struct of bytes and path."""
    found = bytes_of(cell)
    return OSError("the cell holds no encoded image") if found is None else found


@dataclass(frozen=True, slots=True)
class TarReader:
    """Members of tar files, read by offset."""

    files: tuple[ShardFile, ...]
    file: NDArray[np.int32]
    """The file of each row."""
    offset: NDArray[np.int64]
    """The position of each image's first byte."""
    size: NDArray[np.int64]
    """The length of each image in bytes."""

    def read(self, rows: Sequence[int]) -> list[Picture]:
        """The encoded bytes; each file is opened once."""
        wanted = np.asarray(rows)

        def of_file(number: int, positions: NDArray[np.int64]) -> list[Picture]:
            pictures: list[Picture] = []
            with self.files[number].open("rb") as stream:
                for row in wanted[positions]:
                    size = int(self.size[row])
                    stream.seek(int(self.offset[row]))
                    pictures.append(stream.read(size) if size <= LARGEST_FILE else _too_large(size))
            return pictures

        return _read_together(self.file[wanted], of_file)

    def name(self, row: int) -> str:
        """The file and the offset in it."""
        return f"{self.files[self.file[row]]}[offset {self.offset[row]}]"


@dataclass(frozen=True, slots=True)
class JoinedReader:
    """Rows of one reader, and after them chosen rows of another."""

    before: Reader
    after: Reader
    first: int
    """The number of the first row that `after` reads."""
    chosen: NDArray[np.int64]
    """The row of `after` for each row from `first` on."""

    def read(self, rows: Sequence[int]) -> list[Picture]:
        """The pictures, each reader asked once."""
        wanted = np.asarray(rows, dtype=np.int64)

        def of_reader(number: int, positions: NDArray[np.int64]) -> list[Picture]:
            chosen = wanted[positions]
            if number == 0:
                return self.before.read(chosen.tolist())
            return self.after.read(self.chosen[chosen - self.first].tolist())

        return _read_together((wanted >= self.first).astype(np.int64), of_reader)

    def name(self, row: int) -> str:
        """The origin of the row in its own reader."""
        return self.before.name(row) if row < self.first else self.after.name(int(self.chosen[row - self.first]))


def split_of(row: int, splits: Sequence[tuple[str, int]]) -> tuple[str, int]:
    """The split of a row, and that split's first row."""
    return next(item for item in reversed(splits) if item[1] <= row)


def read_file(path: Path) -> Picture:
    """The bytes of a regular file; a link may lead to a device or a pipe, whose end never comes."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return OSError(f"{path} is not a regular file")
        return path.read_bytes() if found.st_size <= LARGEST_FILE else _too_large(found.st_size)
    except OSError as error:
        return error


def _too_large(size: int) -> OSError:
    return OSError(f"the file has {size:,} bytes; want an image of at most {LARGEST_FILE:,}")


def open_picture(picture: Picture) -> Image.Image:
    """Decode a picture, in any mode; raises OSError, ValueError or SyntaxError, as Pillow does, if that fails."""
    if isinstance(picture, OSError):
        raise picture
    if isinstance(picture, np.ndarray):
        return Image.fromarray(picture)
    return Image.open(io.BytesIO(picture), formats=FORMATS) if isinstance(picture, bytes) else picture
