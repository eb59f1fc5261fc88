"""Features of a frozen network as files: Parquet shards of `sample_id: int64` and `features: list<float32>`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hard_ray.data.checked_shard import ShardHeader, add_array, header_hash, verify_table, write_table
from hard_ray.data.index import Rows

SCHEMA = pa.schema([("sample_id", pa.int64()), ("features", pa.list_(pa.float32()))])


@dataclass(frozen=True, slots=True)
class Features:
    """Features of images, a row for each image that could be read."""

    sample_ids: NDArray[np.int64]
    values: NDArray[np.float32]
    """Shape (images, width)."""

    @classmethod
    def joined(cls, parts: list[Features]) -> Features:
        """The rows of all parts, in order; there is at least one part with rows, or none."""
        full = [part for part in parts if len(part.sample_ids)]
        if not full:
            return cls(np.zeros(0, np.int64), np.zeros((0, 0), np.float32))
        return cls(np.concatenate([p.sample_ids for p in full]), np.concatenate([p.values for p in full]))

    def of(self, rows: Rows) -> Features:
        """The features of these sample ids, in their order; ids without features are left out."""
        order = np.argsort(self.sample_ids, kind="stable")
        places = np.searchsorted(self.sample_ids[order], rows)
        places = order[np.minimum(places, len(order) - 1)] if len(order) else places
        there = self.sample_ids[places] == rows if len(order) else np.zeros(len(rows), bool)
        return Features(rows[there], self.values[places[there]])


def write_features(path: Path, header: ShardHeader, features: Features) -> ShardHeader:
    """Write a shard in one step and return its header with the checksum."""
    header = replace(header, sha256=_checksum(header, features))
    table = pa.Table.from_arrays(
        [pa.array(features.sample_ids, SCHEMA[0].type), pa.array(list(features.values), SCHEMA[1].type)], schema=SCHEMA
    )
    write_table(path, header, table, [(0, len(table))] if len(table) else [])
    return header


def read_features(path: Path, number: int, settings: Mapping[str, Any]) -> tuple[ShardHeader, Features]:
    """Verify and read a shard; raises DataError if it is damaged, or was made with other settings."""
    header, table = verify_table(
        path, number, settings, what="features", checksum=lambda head, content: _checksum(head, _of_table(content))
    )
    return header, _of_table(table)


def _of_table(table: pa.Table) -> Features:
    values = table.column("features").combine_chunks().flatten().to_numpy()
    return Features(table.column("sample_id").to_numpy(), values.reshape(len(table), -1 if len(table) else 0))


def _checksum(header: ShardHeader, features: Features) -> str:
    """SHA-256 over the header, sample ids and features."""
    digest = header_hash(header)
    add_array(digest, features.sample_ids, "<i8")
    add_array(digest, features.values, "<f4")
    return digest.hexdigest()
