"""Parquet files that are written in one step with their settings and a checksum, and verified before reuse."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hard_ray.config.layers import dotted_values
from hard_ray.data.safe_parquet import open_parquet, read_parquet
from hard_ray.errors import DataError
from hard_ray.files import write_bytes

KEY = b"hardray"
"""Key of the header in the file's metadata."""
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class ShardHeader:
    """Description of a shard, kept in its metadata."""

    shard: int
    first: int
    """Position of the first image that the shard covers."""
    last: int
    """Position of the last one."""
    rows: int
    """Images in the shard: those it covers that could be read."""
    settings: Mapping[str, Any]
    """The settings that decide the content."""
    digest: str
    """SHA-256 of the settings."""
    bad: tuple[str, ...] = ()
    """Names of the images that could not be read."""
    score: Mapping[str, float] = field(default_factory=dict)
    """Statistics of how it was made, summed over the shard's images."""
    sha256: str = ""
    """Checksum of the fields above and the content."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> ShardHeader:
        """From the values of its JSON; raises TypeError or KeyError if they are not those of a header."""
        return cls(**{**values, "bad": tuple(values["bad"])})


def shard_name(number: int) -> str:
    """The file name of a shard."""
    return f"shard-{number:05d}.parquet"


def spans(images: int, shard_size: int) -> list[range]:
    """Positions of the images that each shard covers."""
    return [range(start, min(start + shard_size, images)) for start in range(0, images, shard_size)]


def digest_of(settings: Mapping[str, Any]) -> str:
    """SHA-256 over settings, whatever their order."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def write_table(path: Path, header: ShardHeader, table: pa.Table, groups: Sequence[tuple[int, int]]) -> None:
    """Write a table with its header in one step, in row groups of these ranges, without compression."""
    table = table.replace_schema_metadata({KEY: json.dumps(asdict(header), sort_keys=True).encode()})
    sink = pa.BufferOutputStream()
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with pq.ParquetWriter(sink, table.schema, **options) as writer:
        for start, stop in groups:
            writer.write_table(table.slice(start, stop - start), row_group_size=stop - start)
    write_bytes(path, sink.getvalue().to_pybytes())


def verify_table(
    path: Path,
    number: int,
    settings: Mapping[str, Any],
    *,
    what: str,
    checksum: Callable[[ShardHeader, pa.Table], str],
) -> tuple[ShardHeader, pa.Table]:
    """Verify a shard of `what` and return its header and content.

    Raises DataError if it is damaged, or was made with other settings.
    """
    remedy = "delete this file and give the same command to make it again, or choose another --output"
    try:
        parquet = open_parquet(path)
        table = read_parquet(parquet, parquet.schema_arrow.names)
        header = ShardHeader.of(json.loads((parquet.metadata.metadata or {})[KEY]))
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{path}: cannot be read as a shard of {what} ({reason}); {remedy}") from None
    if header.digest != digest_of(settings):
        found = "; ".join(differences(header.settings, settings)) or "of another version"
        raise DataError(f"{path}: was made with other settings ({found}); {remedy}")
    if header.shard != number:
        raise DataError(f"{path}: holds shard {header.shard}; {remedy}")
    try:
        intact = header.sha256 == checksum(header, table)
    except (pa.ArrowException, ValueError, TypeError, KeyError):
        intact = False
    if not intact:
        raise DataError(f"{path}: is damaged, its content is not what its checksum was taken of; {remedy}")
    return header, table


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The first few settings that changed, in words."""
    old, new = dotted_values(before), dotted_values(now)
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return [f"{key} was {_short(old.get(key))}, now {_short(new.get(key))}" for key in keys[:_SHOWN]]


def _short(value: Any) -> str:
    return f"{value[:12]}…" if isinstance(value, str) and len(value) > 20 else str(value)


def header_hash(header: ShardHeader) -> hashlib._Hash:
    """A hash of a header without its checksum, to which the content is added."""
    values = {key: value for key, value in asdict(header).items() if key != "sha256"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode())


def add_array(digest: hashlib._Hash, array: NDArray[Any], kind: str) -> None:
    """Add an array to a hash, with its shape, in the type `kind`."""
    digest.update(f"{array.shape}".encode())
    digest.update(np.ascontiguousarray(array.astype(kind)).tobytes())
