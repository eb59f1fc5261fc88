"""Parts of an index: what is found in one shard, kept between starts and made anew for a changed shard alone."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hard_ray.data.account import Account, Tally
from hard_ray.data.kept_index import kept_parts
from hard_ray.data.labels import Labels
from hard_ray.data.remote_folders import RemoteShard, ShardFile
from hard_ray.errors import DataError
from hard_ray.files import read_npz, write_bytes

VERSION = 1
"""Of the way in which parts are made: those of another version are made anew."""


@dataclass(frozen=True, slots=True)
class Part:
    """What the index needs of one shard."""

    labels: Labels
    columns: Mapping[str, NDArray[Any]]
    """Further columns, by name; one value for each row, or for each row group."""
    facts: Mapping[str, Any]
    """Plain values for JSON."""
    tally: Tally = field(default_factory=Tally)
    """The rows or members of the shard."""

    def to_bytes(self) -> bytes:
        """As a NumPy archive, without pickles."""
        facts = {**self.facts, "names": self.labels.names, "tally": self.tally.to_json()}
        columns = {f"column.{name}": values for name, values in self.columns.items()}
        if self.labels.places is not None:
            columns["places"] = self.labels.places
        stream = io.BytesIO()
        text = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
        np.savez(stream, allow_pickle=False, facts=text, numbers=self.labels.numbers, **columns)
        return stream.getvalue()

    @classmethod
    def read(cls, path: Path) -> Part:
        """From a file of `to_bytes`; raises ValueError, KeyError or TypeError if it is none."""
        arrays = read_npz(path)
        facts: dict[str, Any] = json.loads(arrays["facts"].tobytes())
        labels = Labels(arrays["numbers"], arrays.get("places"), tuple(facts.pop("names")))
        columns = {
            name.removeprefix("column."): values for name, values in arrays.items() if name.startswith("column.")
        }
        return cls(labels, columns, facts, Tally.from_json(facts.pop("tally")))


Make = Callable[[ShardFile], Part]
"""Finds what is in a shard; can be sent to other processes."""
Spread = Callable[[Make, Sequence[ShardFile]], Iterable[Part]]
"""Calls a function for each of many paths, in their order."""


def in_threads(make: Make, paths: Sequence[ShardFile]) -> Iterator[Part]:
    """The parts of shards, made by threads of this process."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        yield from pool.map(make, paths)


def read_parts(
    paths: Sequence[ShardFile], make: Make, settings: Mapping[str, Any], account: Account, spread: Spread = in_threads
) -> list[Part]:
    """The part of each shard: kept from an earlier start if the shard is as it was then, else made.

    `settings` decide what `make` finds. The account says how many were made where others were kept.
    """
    places = [_place(path, settings) for path in paths]
    parts = [_kept(place) for place in places]
    missing = [number for number, part in enumerate(parts) if part is None]
    problem: OSError | None = None
    for number, part in zip(missing, spread(make, [paths[number] for number in missing]), strict=True):
        parts[number] = part
        try:
            places[number].parent.mkdir(parents=True, exist_ok=True)
            write_bytes(places[number], part.to_bytes())
        except OSError as error:  # the cache is a convenience: a full disk costs time, not the run
            problem = error
    if problem is not None:
        account.said.append(f"the index is not kept for the next start: {problem.strerror}: {problem.filename}")
    if 0 < len(missing) < len(paths):
        account.said.append(
            f"{len(missing):,} of {len(paths):,} shards are new or changed and were indexed: {paths[missing[0]]}"
            + (", ..." if len(missing) > 1 else "")
        )
    return [part for part in parts if part is not None]


def _place(path: ShardFile, settings: Mapping[str, Any]) -> Path:
    """Where the part of a shard is kept: its name says the shard's path, size and time, and the settings."""
    said = [VERSION, str(path), _state(path), dict(settings)]
    name = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    return kept_parts() / name[:2] / f"{name[2:32]}.npz"


def _state(path: ShardFile) -> str:
    """What tells whether a shard is as it was."""
    if isinstance(path, RemoteShard):
        return path.version
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); make it readable, or move it away") from None
    return f"{found.st_size} {found.st_mtime_ns}"


def _kept(place: Path) -> Part | None:
    """A kept part; None: there is none, or it is damaged."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        if place.is_file():
            os.utime(place)  # those that nobody uses are removed some day
            return Part.read(place)
    return None
