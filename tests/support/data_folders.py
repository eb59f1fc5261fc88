"""Small data folders of any layout: images, tar files and Parquet files, with whatever lies beside them in the wild."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from hard_ray.config.loader import load_config
from hard_ray.data.index import ImageIndex
from hard_ray.data.sources.build import build_index

HEIC = b"\0\0\0\x18ftypheic" + bytes(40)
SIDECAR = bytes.fromhex("0005160700020000") + bytes(120)


def index_of(*overrides: str) -> ImageIndex:
    return build_index(load_config(overrides=overrides).data)


def folder_index(root: Path, *overrides: str) -> ImageIndex:
    return index_of("data.kind=image_folder", f"data.path={root}", *overrides)


def tar_index(root: Path, *overrides: str) -> ImageIndex:
    return index_of("data.kind=webdataset", f"data.path={root}", *overrides)


def image(value: int = 0, form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), (value % 256,) * 3).save(stream, form)
    return stream.getvalue()


def put(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write files by their path below a root."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def fill(root: Path, *folders: str, each: int = 6) -> Path:
    """Folders with so many images in each."""
    return put(root, {f"{folder}/{number}.png": image(number) for folder in folders for number in range(each)})


def fill_splits(root: Path, *splits: str, classes: Iterable[str] = ("cat", "dog"), each: int = 6) -> Path:
    """Splits, each with folders of the classes."""
    return fill(root, *(f"{split}/{name}" for split in splits for name in classes), each=each)


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def samples(first: int, count: int, stem: str = "s{}", label: str = "cls") -> list[tuple[str, bytes]]:
    """Members of samples of two classes."""
    return [
        member
        for number in range(first, first + count)
        for member in (
            (f"{stem.format(number)}.png", image(number)),
            (f"{stem.format(number)}.{label}", str(number % 2).encode()),
        )
    ]


def write_rows(path: Path, first: int, count: int, label: int | None = None) -> Path:
    """A Parquet file of rows of two classes, or of one label."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = range(first, first + count)
    labels = [number % 2 if label is None else label for number in numbers]
    pq.write_table(pa.table({"image": [image(number) for number in numbers], "label": labels}), path)
    return path


def sizes(index: ImageIndex) -> dict[str, int]:
    return {split: len(rows) for split, rows in index.splits.items()}
