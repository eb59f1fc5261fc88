"""One file of a generated set, written in one step with its settings and a checksum, and verified before reuse."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hard_ray.config.layers import dotted_values
from hard_ray.data.generated_set import SCHEMA
from hard_ray.data.safe_parquet import open_parquet, read_parquet
from hard_ray.errors import DataError
from hard_ray.files import write_bytes

KEY = b"hardray"
"""Key of the header in the file's metadata."""
ROW_GROUP_BYTES = 256 * 2**10
"""Images in a row group, in bytes: small, because a run reads rows at random and each read takes a whole group."""
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class ShardRows:
    """The readable images of a shard, in the split's order."""

    sample_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    images: Sequence[bytes]
    """Encoded as PNG."""
    logits: NDArray[np.float32]
    """The teacher's, of the decoded pixels; shape (rows, classes)."""


@dataclass(frozen=True, slots=True)
class ShardHeader:
    """Description of a shard, kept in its metadata."""

    shard: int
    first: int
    """Position in the split of the first image that the shard covers."""
    last: int
    """Position in the split of the last one."""
    rows: int
    """Images in the shard: those it covers that could be read."""
    settings: Mapping[str, Any]
    """The settings that decide the content."""
    digest: str
    """SHA-256 of the settings."""
    bad: tuple[str, ...] = ()
    """Names of the images that could not be read."""
    score: Mapping[str, float] = field(default_factory=dict)
    """Statistics of the attack, summed over the shard's images."""
    sha256: str = ""
    """Checksum of the fields above and the content."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> ShardHeader:
        """From the values of its JSON; raises TypeError or KeyError if they are not those of a header."""
        return cls(**{**values, "bad": tuple(values["bad"])})


def shard_name(number: int) -> str:
    """The file name of a shard."""
    return f"shard-{number:05d}.parquet"


def digest_of(settings: Mapping[str, Any]) -> str:
    """SHA-256 over settings, whatever their order."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def write_shard(path: Path, header: ShardHeader, rows: ShardRows) -> ShardHeader:
    """Write a shard in one step and return its header with the checksum.

    Row groups hold about `ROW_GROUP_BYTES` of images; nothing is compressed, because PNG is already.
    """
    header = replace(header, sha256=_checksum(header, rows))
    table = _to_table(rows).replace_schema_metadata({KEY: json.dumps(asdict(header), sort_keys=True).encode()})
    sink = pa.BufferOutputStream()
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with pq.ParquetWriter(sink, table.schema, **options) as writer:
        for start, stop in _groups([len(image) for image in rows.images]):
            writer.write_table(table.slice(start, stop - start), row_group_size=stop - start)
    write_bytes(path, sink.getvalue().to_pybytes())
    return header


def verify_shard(path: Path, number: int, settings: Mapping[str, Any]) -> ShardHeader:
    """Verify a shard and return its header; raises DataError if it is damaged, or was made with other settings."""
    remedy = "delete this file and give the same command to make it again, or choose another --output"
    try:
        parquet = open_parquet(path)
        table = read_parquet(parquet, parquet.schema_arrow.names)
        header = ShardHeader.of(json.loads((parquet.metadata.metadata or {})[KEY]))
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{path}: cannot be read as a shard of a generated set ({reason}); {remedy}") from None
    if header.digest != digest_of(settings):
        found = "; ".join(differences(header.settings, settings)) or "of another version"
        raise DataError(f"{path}: was made with other settings ({found}); {remedy}")
    if header.shard != number:
        raise DataError(f"{path}: holds shard {header.shard}; {remedy}")
    try:
        intact = header.sha256 == _checksum(header, _to_rows(table))
    except (pa.ArrowException, ValueError, TypeError, KeyError):
        intact = False
    if not intact:
        raise DataError(f"{path}: is damaged, its content is not what its checksum was taken of; {remedy}")
    return header


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The first few settings that changed, in words."""
    old, new = dotted_values(before), dotted_values(now)
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return [f"{key} was {_short(old.get(key))}, now {_short(new.get(key))}" for key in keys[:_SHOWN]]


def _short(value: Any) -> str:
    return f"{value[:12]}…" if isinstance(value, str) and len(value) > 20 else str(value)


def _groups(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Ranges of neighbouring images that have about `ROW_GROUP_BYTES` together."""
    groups, start, size = [], 0, 0
    for number, each in enumerate(sizes, start=1):
        size += each
        if size >= ROW_GROUP_BYTES or number == len(sizes):
            groups.append((start, number))
            start, size = number, 0
    return groups


def _to_table(rows: ShardRows) -> pa.Table:
    ids = [str(sample_id) for sample_id in rows.sample_ids.tolist()]
    images = [{"bytes": image, "path": f"{name}.png"} for name, image in zip(ids, rows.images, strict=True)]
    columns = [ids, images, rows.labels.astype(np.int32), list(rows.logits.astype(np.float32))]
    return pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def _to_rows(table: pa.Table) -> ShardRows:
    images = table.column("image").combine_chunks()
    logits = table.column("logits").combine_chunks()
    return ShardRows(
        np.array([int(each) for each in table.column("sample_id").to_pylist()], dtype=np.int64),
        table.column("label").to_numpy().astype(np.int64),
        [each.as_py() for each in images.field("bytes")],
        logits.flatten().to_numpy().reshape(len(table), -1 if len(table) else 0),
    )


def _checksum(header: ShardHeader, rows: ShardRows) -> str:
    """SHA-256 over the header, sample ids, labels, image bytes and logits."""
    values = {key: value for key, value in asdict(header).items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for array, kind in ((rows.sample_ids, "<i8"), (rows.labels, "<i8"), (rows.logits, "<f4")):
        digest.update(f"{array.shape}".encode())
        digest.update(np.ascontiguousarray(array.astype(kind)).tobytes())
    for image in rows.images:
        digest.update(len(image).to_bytes(8, "little"))
        digest.update(image)
    return digest.hexdigest()
