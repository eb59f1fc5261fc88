"""The samples of an ordinary WebDataset shard, found from its headers' 512-byte blocks by whole columns.

Most shards hold regular members with short ASCII names, one image and at most one label for each key. Their headers are
decoded together, in a fraction of the time that an object for each member takes. A shard with anything else, or with a
fault, is none of these: `samples` reads it member by member, and says what is wrong.
"""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hard_ray.config.data import WebDatasetData
from hard_ray.data.account import Tally
from hard_ray.data.labels import ABSENT, Labels, numbers_of
from hard_ray.data.layout import SYSTEM_NAMES, suffix_of, why_no_image
from hard_ray.data.remote_folders import ShardFile
from hard_ray.data.sources.tar_labels import read_label
from hard_ray.data.sources.tar_members import LARGEST_TAIL, unread

BLOCK = 512
"""Bytes of a header; the content of a member fills whole blocks."""
_REGULAR, _FOLDER, _EXTENDED = b"05x"
_NAME, _SIZE, _KIND, _MAGIC = slice(0, 100), slice(124, 135), 156, slice(257, 263)
_SUM, _PREFIX = slice(148, 156), slice(345, 500)
_USTAR = np.frombuffer(b"ustar\0", dtype=np.uint8)
_DECISIVE = re.compile(rb"path=|size=|GNU\.|hdrcharset=")
"""Keys of an extended header that change what the next header says; others are times and owners."""
_KEY = r"^(?P<key>(?:.*/|)[^.]+)[.](?P<extension>[^/]*)$"
_SYSTEM = "|".join(map(re.escape, sorted(SYSTEM_NAMES)))
_ODD = rf"(^|/)\.(\.?[^./]|\.\.)|^__[^/]*__(/|$)|(?i:(^|/)({_SYSTEM})(/|$))|\n"
"""Names of hidden members and of WebDataset's own."""
_LONGEST_LABEL = 64
"""Bytes of a label's text beyond which labels are read one by one."""
_NUMBER, _WHOLE = r"^-?\d{1,9}$", r"^-?\d{1,9}(\.0*)?$"


@dataclass(frozen=True, slots=True)
class PlainSamples:
    """The samples of a shard, in the order of their images."""

    labels: Labels
    offset: NDArray[np.int64]
    """The position of each image's first byte."""
    size: NDArray[np.int64]
    """The length of each image in bytes."""
    keys: pa.Array
    tally: Tally


class _NotPlainError(Exception):
    """The shard is not an ordinary one."""


def plain_samples(path: ShardFile, config: WebDatasetData) -> PlainSamples | None:
    """The samples of an ordinary shard; None if it has to be read member by member.

    Raises DataError if a label cannot be read.
    """
    try:
        local = path if isinstance(path, Path) else path.local_copy()
        if local is None:  # the cache has no room for it
            return None
        with local.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            members = _members(content)
            return _samples(members, content, path, config)
    except (_NotPlainError, OSError, ValueError):  # an empty file cannot be mapped
        return None


@dataclass(frozen=True, slots=True)
class _Members:
    """The regular members, in their order."""

    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    key: pa.DictionaryArray
    extension: pa.DictionaryArray
    """In lower case."""
    names: pa.Array


def _members(content: mmap.mmap) -> _Members:
    starts, sizes, extended = _walk(content)
    headers = _blocks(content, starts)
    _check_sums(headers)
    _check_sums(_blocks(content, extended))
    names = headers[:, _NAME]
    is_set = names != 0
    has_prefix = (headers[:, _MAGIC] == _USTAR).all(axis=1) & (headers[:, _PREFIX] != 0).any(axis=1)
    if (names > 127).any() or (is_set[:, 1:] & ~is_set[:, :-1]).any() or has_prefix.any():
        raise _NotPlainError
    text = _text(names)
    found = pc.extract_regex(text, _KEY)
    if found.null_count or pc.any(pc.match_substring_regex(text, _ODD)).as_py():
        raise _NotPlainError
    key, extension = pc.struct_field(found, "key"), pc.ascii_lower(pc.struct_field(found, "extension"))
    return _Members(starts + BLOCK, sizes, key.dictionary_encode(), extension.dictionary_encode(), text)


def _walk(content: mmap.mmap) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The positions of the headers of regular members, the sizes of these, and the positions of extended headers."""
    end, at = len(content), 0
    starts: list[int] = []
    sizes: list[int] = []
    extended: list[int] = []
    while at + BLOCK <= end and content[at]:
        size = int(content[at + 124 : at + 135], 8)
        kind = content[at + _KIND]
        if kind == _REGULAR:
            starts.append(at)
            sizes.append(size)
        elif kind == _EXTENDED:
            if _DECISIVE.search(content[at + BLOCK : at + BLOCK + size]):
                raise _NotPlainError
            extended.append(at)
        elif kind != _FOLDER:
            raise _NotPlainError
        at += BLOCK + -(-size // BLOCK) * BLOCK
    if at > end or not starts or content[at : at + LARGEST_TAIL].strip(b"\0"):
        raise _NotPlainError
    return tuple(np.array(values, dtype=np.int64) for values in (starts, sizes, extended))  # type: ignore[return-value]


def _blocks(content: mmap.mmap, starts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """A copy of the blocks at these positions, all of them multiples of a block, shape (positions, 512)."""
    blocks = np.frombuffer(content, dtype=np.uint8, count=len(content) // BLOCK * BLOCK).reshape(-1, BLOCK)
    return blocks[starts // BLOCK]


def _check_sums(headers: NDArray[np.uint8]) -> None:
    """Raise unless the sum of each header's bytes is the one that it says, its own field counted as spaces."""
    said = headers[:, _SUM]
    digits = said[:, :6].astype(np.int64) - ord("0")
    if ((digits < 0) | (digits > 7)).any():
        raise _NotPlainError
    found = headers.sum(axis=1, dtype=np.int64) - said.sum(axis=1, dtype=np.int64) + 8 * ord(" ")
    if (found != digits @ (8 ** np.arange(5, -1, -1))).any():
        raise _NotPlainError


def _text(rows: NDArray[np.uint8]) -> pa.Array:
    """ASCII text of fixed width that ends in zeros, shape (rows, bytes), as strings."""
    kind, data = pa.binary(rows.shape[1]), pa.py_buffer(np.ascontiguousarray(rows))  # pa.array would import pandas
    fixed = pa.FixedSizeBinaryArray.from_buffers(kind, len(rows), [None, data])
    return pc.ascii_rtrim(fixed.cast(pa.binary()).cast(pa.string()), characters="\0")


@dataclass(frozen=True, slots=True)
class _Kinds:
    """What members with each extension are."""

    is_image: NDArray[np.bool_]
    is_label: NDArray[np.bool_]
    why_unused: list[str]


def _kinds(extensions: list[str], config: WebDatasetData) -> _Kinds:
    kinds = _Kinds(np.zeros(len(extensions), dtype=bool), np.zeros(len(extensions), dtype=bool), [])
    chosen = None if config.image_key is None else config.image_key.strip().lower()
    if chosen is not None and (";" in chosen or chosen == config.label_member):
        raise _NotPlainError
    for place, extension in enumerate(extensions):
        reason = why_no_image(f"x{suffix_of(f'x.{extension}')}")
        kinds.is_label[place] = extension == config.label_member
        kinds.is_image[place] = extension == chosen if chosen is not None else reason == ""
        if (reason is None and chosen is None and not kinds.is_label[place]) or (
            kinds.is_label[place] and kinds.is_image[place]
        ):
            raise _NotPlainError
        kinds.why_unused.append(unread(f"x.{extension}"))
    return kinds


def _samples(members: _Members, content: mmap.mmap, path: ShardFile, config: WebDatasetData) -> PlainSamples:
    extensions, keys = members.extension.dictionary.to_pylist(), members.key.dictionary
    kinds = _kinds(extensions, config)
    kind_of, key_of = (numbers_of(column.indices).astype(np.int64) for column in (members.extension, members.key))
    if np.bincount(key_of * len(extensions) + kind_of).max() > 1:  # two members of one name
        raise _NotPlainError
    images, labels = np.flatnonzero(kinds.is_image[kind_of]), np.flatnonzero(kinds.is_label[kind_of])
    if (np.bincount(key_of[images], minlength=len(keys)) != 1).any():
        raise _NotPlainError
    label_of_key = np.full(len(keys), -1)
    label_of_key[key_of[labels]] = labels
    label_at = label_of_key[key_of[images]]
    if config.label_key is None:
        found = Labels.none(len(images))
    elif (label_at < 0).any():
        raise _NotPlainError
    else:
        found = _labels(members, label_at, content, path, config)
    tally = Tally(used=len(images) + (0 if config.label_key is None else len(labels)))
    counts = np.bincount(kind_of, minlength=len(extensions))
    for place, extension in enumerate(extensions):
        tally.find(suffix_of(f"x.{extension}"), count=int(counts[place]))
        if not kinds.is_image[place] and not kinds.is_label[place]:
            own = np.flatnonzero(kind_of == place)
            first = own[np.argmin(key_of[own])]  # keys are numbered in the order of their first member
            tally.leave_out(kinds.why_unused[place], f"{path}: {members.names[int(first)]}", count=int(counts[place]))
    chosen = np.ascontiguousarray(key_of[images])
    own = keys.take(pa.Array.from_buffers(pa.int64(), len(chosen), [None, pa.py_buffer(chosen)]))
    return PlainSamples(found, members.offset[images], members.size[images], own, tally)


def _labels(
    members: _Members, chosen: NDArray[np.int64], content: mmap.mmap, path: ShardFile, config: WebDatasetData
) -> Labels:
    offset, size = members.offset[chosen], members.size[chosen]
    found = None if config.label_member == "json" else _short_labels(content, offset, size)
    if found is not None:
        return found
    values: list[Any] = []
    for number, (start, length) in enumerate(zip(offset.tolist(), size.tolist(), strict=True)):
        where = f"{path}: {members.names[int(chosen[number])]}"
        value, _ = read_label(content[start : start + length], config, where)
        if value is None:
            raise _NotPlainError
        values.append(value)
    return Labels.of(values)


def _short_labels(content: mmap.mmap, offset: NDArray[np.int64], size: NDArray[np.int64]) -> Labels | None:
    """Labels in text that are all numbers, or all names; None: they have to be read one by one."""
    longest = int(size.max(initial=0))
    if not 0 < longest <= _LONGEST_LABEL:
        return None
    data = _blocks(content, offset)[:, :longest]
    data[np.arange(longest) >= size[:, None]] = 0
    is_set = data != 0
    if (data > 127).any() or (is_set.sum(axis=1) != size).any():
        return None
    text = pc.utf8_trim_whitespace(_text(data))
    if pc.any(pc.match_substring(text, "\n")).as_py():
        return None
    if pc.all(pc.match_substring_regex(text, _NUMBER)).as_py():
        return Labels(numbers_of(text.cast(pa.int64())))
    if pc.any(pc.match_substring_regex(text, _WHOLE)).as_py():
        return None
    named = text.dictionary_encode()
    return Labels(
        np.full(len(text), ABSENT), numbers_of(named.indices).astype(np.int32), tuple(named.dictionary.to_pylist())
    )
