"""One file of a generated set, written in one step with its settings and a checksum, and verified before reuse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hard_ray.data.checked_shard import ShardHeader, add_array, header_hash, verify_table, write_table
from hard_ray.data.generated_set import SCHEMA
from hard_ray.data.index import NO_LABEL

ROW_GROUP_BYTES = 256 * 2**10
"""Images in a row group, in bytes: small, because a run reads rows at random and each read takes a whole group."""


@dataclass(frozen=True, slots=True)
class ShardRows:
    """The readable images of a shard, in the split's order."""

    sample_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    """`NO_LABEL` where an image has none; null in the file."""
    images: Sequence[bytes]
    """Encoded as PNG."""
    logits: NDArray[np.float32]
    """The teacher's, of the decoded pixels; shape (rows, classes)."""


def write_shard(path: Path, header: ShardHeader, rows: ShardRows) -> ShardHeader:
    """Write a shard in one step and return its header with the checksum.

    Row groups hold about `ROW_GROUP_BYTES` of images; nothing is compressed, because PNG is already.
    """
    header = replace(header, sha256=_checksum(header, rows))
    write_table(path, header, _to_table(rows), _groups([len(image) for image in rows.images]))
    return header


def verify_shard(path: Path, number: int, settings: Mapping[str, Any]) -> ShardHeader:
    """Verify a shard and return its header; raises DataError if it is damaged, or was made with other settings."""
    header, _ = verify_table(
        path, number, settings, what="a generated set", checksum=lambda head, table: _checksum(head, _to_rows(table))
    )
    return header


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
    labels = pa.array(rows.labels.astype(np.int32), mask=rows.labels == NO_LABEL)
    columns = [ids, images, labels, list(rows.logits.astype(np.float32))]
    return pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def _to_rows(table: pa.Table) -> ShardRows:
    images = table.column("image").combine_chunks()
    logits = table.column("logits").combine_chunks()
    return ShardRows(
        np.array([int(each) for each in table.column("sample_id").to_pylist()], dtype=np.int64),
        table.column("label").fill_null(NO_LABEL).to_numpy().astype(np.int64),
        [each.as_py() for each in images.field("bytes")],
        logits.flatten().to_numpy().reshape(len(table), -1 if len(table) else 0),
    )


def _checksum(header: ShardHeader, rows: ShardRows) -> str:
    """SHA-256 over the header, sample ids, labels, image bytes and logits."""
    digest = header_hash(header)
    add_array(digest, rows.sample_ids, "<i8")
    add_array(digest, rows.labels, "<i8")
    add_array(digest, rows.logits, "<f4")
    for image in rows.images:
        digest.update(len(image).to_bytes(8, "little"))
        digest.update(image)
    return digest.hexdigest()
