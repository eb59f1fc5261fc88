"""Generated sets, as `hardray generate` writes them: find the generated image of each image of the data.

A set is a folder with `manifest.json` and Parquet shards of the columns `sample_id: string`,
`image: struct<bytes, path>` (lossless PNG), `label: int32` (null: the image has none) and `logits: list<float32>`, the
teacher's logits of the decoded pixels. A shard covers a fixed range of the split's images.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hard_ray.config.augmentor import AugmentorConfig, GeneratedAugmentor, parts_of
from hard_ray.config.runtime import RuntimeConfig
from hard_ray.data.index import ImageIndex
from hard_ray.data.readers import ParquetReader, Picture
from hard_ray.data.remote_folders import RemoteShard, ShardFile
from hard_ray.data.safe_parquet import group_rows, open_parquet, read_parquet
from hard_ray.data.sources.build import cache_of
from hard_ray.errors import DataError, MissingObjectError, RunFolderError, readable
from hard_ray.files import read_json
from hard_ray.storage import objects
from hard_ray.storage.address import Remote
from hard_ray.storage.cache import ObjectCache
from hard_ray.storage.folders import StoredFile, files_at

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

    folder: Path | Remote
    """Where the set is."""
    reader: ParquetReader
    place: NDArray[np.int64]
    """The reader's row of each sample id; -1 for an image that has none."""
    unreadable: int
    """Images of the data that could not be read when the set was made."""

    def read(self, sample_ids: NDArray[np.int64]) -> list[Picture]:
        """The encoded images that belong to `sample_ids`; raises DataError if one of them was not generated."""
        places = self.place[sample_ids]
        if (places < 0).any():
            missing = int(sample_ids[places < 0][0])
            raise DataError(f"the generated set {self.folder} has no image for sample id {missing}")
        return self.reader.read(places.tolist())


def generated_for(
    augmentor: AugmentorConfig, index: ImageIndex, cache: ObjectCache | None = None
) -> GeneratedImages | None:
    """Open the generated set that an augmentor uses, as `open_generated` does; None if it uses none."""
    for part in parts_of(augmentor):
        if isinstance(part, GeneratedAugmentor):
            return open_generated(part.path, index, cache)
    return None


def open_generated(folder: Path | Remote, index: ImageIndex, cache: ObjectCache | None = None) -> GeneratedImages:
    """Open and index a set in a folder or at a URL, whose shards every node then keeps in `cache`.

    Raises DataError if it cannot be read, is not finished, or was made from other data.
    """
    there = {} if isinstance(folder, Path) else files_at(folder)
    manifest = read_manifest(folder, there)
    if not manifest.get("complete"):
        raise DataError(f"{folder}: the set is not finished; the same `hardray generate` command goes on with it")
    fingerprint, names = _contents(folder, manifest)
    files = _shards(folder, names, there, cache or cache_of(RuntimeConfig()))
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
    return GeneratedImages(folder, reader, place, len(manifest.get("bad_images") or ()))


def _shards(
    folder: Path | Remote, names: Sequence[str], there: Mapping[str, StoredFile], cache: ObjectCache
) -> list[ShardFile]:
    """The files of shards, in the folder or `there` at the URL; raises DataError if the URL lacks one."""
    if isinstance(folder, Path):
        return [folder.resolve() / name for name in names]
    if missing := [name for name in names if name not in there]:
        raise DataError(
            f"{folder.shown}: the set's shard {missing[0]} is missing; the same `hardray generate` command makes it "
            "again"
        )
    return [RemoteShard((found := there[name]).remote, found.size, found.version, cache) for name in names]


def read_manifest(folder: Path | Remote, there: Mapping[str, StoredFile]) -> dict[str, Any]:
    """Read the manifest of a set, of which `there` are the files at a URL; raises DataError if it has none."""
    manifest: dict[str, Any] | None = None
    try:
        if isinstance(folder, Path):
            manifest = read_json(folder / MANIFEST)
        elif MANIFEST in there:
            manifest = json.loads(objects.read(there[MANIFEST].remote))
    except (RunFolderError, OSError, ValueError, MissingObjectError):
        manifest = None
    if not isinstance(manifest, dict):
        raise DataError(f"{folder}: holds no {MANIFEST} of a generated set; make one with `hardray generate`")
    return manifest


def _contents(folder: Path | Remote, manifest: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The fingerprint of a set's data, and the names of its shards, which must be in its own folder."""
    try:
        fingerprint, names = manifest["data_fingerprint"], [shard["file"] for shard in manifest["shards"]]
    except (KeyError, TypeError):
        fingerprint, names = None, []
    if not isinstance(fingerprint, str) or not names or not all(_SHARD.fullmatch(str(name)) for name in names):
        raise DataError(
            f"{folder / MANIFEST}: want the `data_fingerprint` of a finished set and the `file` of each shard; "
            "delete this file, and the same `hardray generate` command writes it again"
        )
    return fingerprint, tuple(names)


def _read_shard(path: ShardFile, count: int) -> tuple[list[int], NDArray[np.int64]]:
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


def _unreadable(path: ShardFile, reason: str) -> DataError:
    return DataError(f"{path}: the shard cannot be read ({reason}); delete it and generate it again")
