"""Arrays of a kept index: mapped from a file, and sent to other processes as the place of that file alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Place:
    """Where an index is kept, and how it is made again on a node that does not see that folder."""

    folder: str
    settings: str
    """What decides the index, as JSON."""
    fingerprint: str


Opener = Callable[[Place, str], NDArray[Any]]
"""Opens the array of a name that another process has sent; a function of a module."""


class Mapped(np.memmap):
    """An array in a file of a kept index; what is computed of it is no such array."""

    place: Place | None = None
    name = ""
    opener: Opener | None = None

    def __array_finalize__(self, obj: Any) -> None:
        super().__array_finalize__(obj)
        self.place = None

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.place is None:
            return np.array(self).__reduce_ex__(protocol)
        return self.opener, (self.place, self.name)


def map_array(place: Place, name: str, opener: Opener) -> Mapped:
    """The array of this name, which `opener` opens where it is sent; OSError or ValueError: it is not there."""
    array: Mapped = np.load(Path(place.folder, f"{name}.npy"), mmap_mode="r", allow_pickle=False).view(Mapped)
    array.place, array.name, array.opener = place, name, opener
    return array


@dataclass(frozen=True, slots=True)
class Names:
    """Many texts, as UTF-8 in one array: a million Python strings are slow to send, and large."""

    ends: NDArray[np.int64]
    """The first byte of each text, and at the end the number of bytes."""
    text: NDArray[np.uint8]

    @classmethod
    def of(cls, names: Sequence[str]) -> Names:
        """From Python's strings."""
        encoded = [name.encode() for name in names]
        ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(ends, np.frombuffer(b"".join(encoded), dtype=np.uint8))

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, row: int) -> str:
        return self.text[self.ends[row] : self.ends[row + 1]].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        content = self.text.tobytes()
        return (content[start:end].decode() for start, end in pairwise(self.ends.tolist()))
