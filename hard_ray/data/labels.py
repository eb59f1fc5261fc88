"""The labels of a source as columns: class numbers, class names, or none, without a Python object for each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Label = int | str

_LARGEST = np.iinfo(np.int64).max
ABSENT = np.iinfo(np.int64).min
"""In `Labels.numbers`: the label is no number."""


@dataclass(frozen=True, slots=True)
class Labels:
    """One label for each row: a number, a name, or none. As a sequence it gives `int`, `str` or `None`."""

    numbers: NDArray[np.int64]
    """The number of each row; `ABSENT` where its label is none."""
    places: NDArray[np.int32] | None = None
    """The place of each row's name in `names`; -1 where its label is no name. None: no label is a name."""
    names: tuple[str, ...] = ()
    """The names that occur, in any order."""

    @classmethod
    def none(cls, count: int) -> Labels:
        """So many rows without a label."""
        return cls(np.full(count, ABSENT))

    @classmethod
    def of(cls, values: Sequence[Label | None] | NDArray[np.integer[Any]]) -> Labels:
        """From Python's values or an array of numbers."""
        if isinstance(values, np.ndarray):
            return cls(values.astype(np.int64))
        numbers = np.array(
            [max(-_LARGEST, min(value, _LARGEST)) if isinstance(value, int) else ABSENT for value in values],
            dtype=np.int64,
        )  # numbers beyond 64 bits are no classes
        place_of: dict[str, int] = {}
        places = [place_of.setdefault(value, len(place_of)) if isinstance(value, str) else -1 for value in values]
        return cls(numbers, np.array(places, dtype=np.int32), tuple(place_of)) if place_of else cls(numbers)

    @classmethod
    def of_arrow(cls, column: pa.ChunkedArray | pa.Array) -> Labels:
        """From a column of integers or strings, or of a dictionary of these; null: no label."""
        if pa.types.is_dictionary(column.type) and not _is_text(column.type.value_type):
            column = column.cast(column.type.value_type)
        if pa.types.is_null(column.type):
            return cls.none(len(column))
        if pa.types.is_integer(column.type):
            if pa.types.is_uint64(column.type):  # larger numbers are no classes; the largest one says so as well
                column = pc.min_element_wise(column, pa.scalar(_LARGEST, pa.uint64()), skip_nulls=False)
            return cls(numbers_of(pc.fill_null(column.cast(pa.int64()), ABSENT)))
        if not pa.types.is_dictionary(column.type):
            column = column.cast(pa.large_string()).dictionary_encode()
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        return cls.joined([cls._of_dictionary(chunk) for chunk in chunks])

    @classmethod
    def _of_dictionary(cls, chunk: pa.DictionaryArray) -> Labels:
        places = numbers_of(pc.fill_null(chunk.indices.cast(pa.int32()), -1))
        names = chunk.dictionary.to_pylist()
        absent = np.array([name is None for name in names], dtype=bool)
        if absent.any():  # Parquet's own writers keep no null in a dictionary, others may
            places = np.where((places >= 0) & absent[places], np.int32(-1), places)
        return cls(np.full(len(chunk), ABSENT), places, tuple(name or "" for name in names))

    @classmethod
    def joined(cls, parts: Sequence[Labels]) -> Labels:
        """The rows of several columns, one after the other."""
        if len(parts) == 1:
            return parts[0]
        numbers = np.concatenate([np.zeros(0, dtype=np.int64), *(part.numbers for part in parts)])
        if all(part.places is None for part in parts):
            return cls(numbers)
        place_of: dict[str, int] = {}
        places: list[NDArray[np.int32]] = []
        for part in parts:
            own = np.array([place_of.setdefault(name, len(place_of)) for name in part.names] + [-1], dtype=np.int32)
            none = np.full(len(part), -1, dtype=np.int32)
            places.append(none if part.places is None else own[part.places])  # the last of `own` is for -1
        return cls(numbers, np.concatenate(places), tuple(place_of))

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, row: int) -> Label | None:
        if self.numbers[row] != ABSENT:
            return int(self.numbers[row])
        return self.names[self.places[row]] if self.places is not None and self.places[row] >= 0 else None

    def __iter__(self) -> Iterator[Label | None]:
        return (self[row] for row in range(len(self)))

    def take(self, rows: NDArray[Any] | slice) -> Labels:
        """The labels of chosen rows: numbers of rows, a mask or a slice."""
        return Labels(self.numbers[rows], None if self.places is None else self.places[rows], self.names)

    @property
    def are_numbers(self) -> NDArray[np.bool_]:
        """Whether the label of each row is a number."""
        found: NDArray[np.bool_] = self.numbers != ABSENT
        return found

    @property
    def used_names(self) -> set[str]:
        """The names that a row has."""
        if self.places is None:
            return set()
        return {self.names[place] for place in np.flatnonzero(np.bincount(self.places + 1, minlength=1)[1:])}

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Whether the label of each row says that there is none: -1, an empty name, or no label."""
        is_named = np.zeros(len(self), dtype=bool)
        if self.places is not None:
            is_name = np.array([bool(name) for name in self.names] + [False], dtype=bool)
            is_named = is_name[self.places]
        found: NDArray[np.bool_] = ~is_named & ((self.numbers == ABSENT) | (self.numbers == -1))
        return found


def numbers_of(column: pa.ChunkedArray | pa.Array) -> NDArray[Any]:
    """A column of numbers without nulls; `to_numpy` would import pandas, which takes longer than a small index."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    kind = np.dtype(str(column.type))
    parts = [
        np.frombuffer(each.buffers()[1], kind)[each.offset : each.offset + len(each)] for each in chunks if len(each)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, kind), *parts])


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
