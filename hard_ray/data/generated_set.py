"""Generated sets, as `hardray generate` writes them: find the generated image of each image of the data.

A set is a folder with `manifest.json` and Parquet shards of the columns `sample_id: string`,
`image: struct<bytes, path>` (lossless PNG), `label: int32` (null: the image has none) and `logits: list<float32>`, the
teacher's logits of the decoded pixels. A shard covers a fixed range of the split's images.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hard_ray.config.augmentor import AugmentorConfig, GeneratedAugmentor, parts_of
from hard_ray.data.index import ImageIndex
from hard_ray.data.readers import ParquetReader, Picture
from hard_ray.data.safe_parquet import group_rows, open_parquet, read_parquet
from hard_ray.errors import DataError, RunFolderError, readable
from hard_ray.files import read_json

MANIFEST = "manifest.json"
_SHARD = re.compile(r"shard-[0-9]+\.parquet")
SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("label", pa.int32()),
        ("logits", pa.list_(pa.float32())),
    ]
)


@dataclass(frozen=True, slots=True)
class GeneratedImages:
    """The images of a generated set, by sample id; small enough to be sent to every process."""

    reader: ParquetReader
    place: NDArray[np.int64]
    """The reader's row of each sample id; -1 for an image that has none."""

    @property
    def folder(self) -> Path:
        """The folder of the set."""
        return Path(str(self.reader.files[0])).parent

    def read(self, sample_ids: NDArray[np.int64]) -> list[Picture]:
        """The encoded images that belong to `sample_ids`; raises DataError if one of them was not generated."""
        places = self.place[sample_ids]
        if (places < 0).any():
            missing = int(sample_ids[places < 0][0])
            raise DataError(f"the generated set {self.folder} has no image for sample id {missing}")
        return self.reader.read(places.tolist())


def generated_for(augmentor: AugmentorConfig, index: ImageIndex) -> GeneratedImages | None:
    """Open the generated set that an augmentor uses, as `open_generated` does; None if it uses none."""
    for part in parts_of(augmentor):
        if isinstance(part, GeneratedAugmentor):
            return open_generated(part.path, index)
    return None


def open_generated(folder: Path, index: ImageIndex) -> GeneratedImages:
    """Open and index a set; raises DataError if it cannot be read, is not finished, or was made from other data."""
    manifest = read_manifest(folder)
    if not manifest.get("complete"):
        raise DataError(f"{folder}: the set is not finished; the same `hardray generate` command goes on with it")
    fingerprint, files = _contents(folder, manifest)
    if fingerprint != index.fingerprint():
        raise DataError(
            f"{folder}: was generated from other data than this run's (fingerprint "
            f"{fingerprint[:12]}, here {index.fingerprint()[:12]}): labels, classes or splits differ"
        )
    groups, ids = [], []
    for path in files:
        rows, found = _read_shard(path, len(index.labels))
        groups.append(rows)
        ids.append(found)
    reader = ParquetReader.of(files, groups, "image")
    place = np.full(len(index.labels), -1, dtype=np.int64)
    joined = np.concatenate(ids)
    place[joined] = np.arange(len(joined))
    return GeneratedImages(reader, place)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a set; raises DataError if the folder has none."""
    try:
        manifest: dict[str, Any] | None = read_json(folder / MANIFEST)
    except (RunFolderError, OSError, ValueError):
        manifest = None
    if not isinstance(manifest, dict):
        raise DataError(f"{folder}: holds no {MANIFEST} of a generated set; make one with `hardray generate`")
    return manifest


def _contents(folder: Path, manifest: dict[str, Any]) -> tuple[str, tuple[Path, ...]]:
    """The fingerprint of a set's data, and the paths of its shards, which must be in its own folder."""
    try:
        fingerprint, names = manifest["data_fingerprint"], [shard["file"] for shard in manifest["shards"]]
    except (KeyError, TypeError):
        fingerprint, names = None, []
    if not isinstance(fingerprint, str) or not names or not all(_SHARD.fullmatch(str(name)) for name in names):
        raise DataError(
            f"{folder / MANIFEST}: want the `data_fingerprint` of a finished set and the `file` of each shard; "
            "delete this file, and the same `hardray generate` command writes it again"
        )
    return fingerprint, tuple(folder.resolve() / name for name in names)


def _read_shard(path: Path, count: int) -> tuple[list[int], NDArray[np.int64]]:
    """The sizes of a shard's row groups, and the sample id of each row, which must be below `count`."""
    try:
        parquet = open_parquet(path)
        if "image" not in parquet.schema_arrow.names:
            raise OSError("has no column 'image'")
        column = read_parquet(parquet, ["sample_id"])["sample_id"]
        ids: NDArray[np.int64] = column.cast(pa.int64()).fill_null(-1).to_numpy()
    except OSError as error:
        raise _unreadable(path, str(error)) from None
    except pa.ArrowException as error:
        raise _unreadable(path, readable(error)) from None
    wrong = ids[(ids < 0) | (ids >= count)]
    if len(wrong):
        raise _unreadable(path, f"sample id {wrong[0]} is not one of the data's, which are 0 to {count - 1}")
    return group_rows(parquet), ids


def _unreadable(path: Path, reason: str) -> DataError:
    return DataError(f"{path}: the shard cannot be read ({reason}); delete it and generate it again")
