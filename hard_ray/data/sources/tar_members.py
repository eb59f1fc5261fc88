"""Members of a tar file: where each visible file lies in it, and an account of all others."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from hard_ray.data.account import Tally
from hard_ray.data.layout import HIDDEN, NO_IMAGE, is_hidden, suffix_of, why_no_image
from hard_ray.data.remote_folders import ShardFile
from hard_ray.errors import DataError

_NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
"""WebDataset's own rule: the key of a member ends at the first dot of its file name, and its extension begins there."""

_META = re.compile(r"__[^/]*__($|/)")
LARGEST_TAIL = 2**20
"""Bytes behind the end of an archive that are looked at, at most."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar file."""

    key: str
    """Shared by the members of one sample."""
    extension: str
    """In lower case: `jpg`, `seg.png`."""
    name: str
    offset: int
    """The position of its first byte."""
    size: int

    @property
    def suffix(self) -> str:
        """The last part of the extension, with its dot."""
        return suffix_of(f"x.{self.extension}")


def unread(name: str) -> str:
    """The reason why a member of a sample with an image is not read."""
    reason, suffix = why_no_image(f"x{suffix_of(name)}"), suffix_of(name)
    return reason if reason and reason != NO_IMAGE else f"a {suffix} member, which is not read"


def read_members(path: ShardFile, tally: Tally) -> list[Member]:
    """The members that belong to samples, in their order; all others are entered in the tally with a reason.

    Raises DataError if the file is no whole uncompressed tar file, or two members have one name.
    """
    try:
        with path.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            members = list(_members(archive, path, tally))
            _check_end(stream, path, archive.offset)
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"{path}: cannot be read as an uncompressed tar file ({error}); unpack it if it is compressed, or fetch or "
            "write it again"
        ) from None
    names: set[tuple[str, str]] = set()
    for member in members:
        if (member.key, member.extension) in names:
            raise DataError(
                f"{path}: two members are named {member.name!r}, case of the extension aside; rename or remove one"
            )
        names.add((member.key, member.extension))
    return members


def _members(archive: tarfile.TarFile, path: ShardFile, tally: Tally) -> Iterator[Member]:
    for entry in archive:
        if entry.isdir():
            continue
        tally.find(suffix_of(entry.name.rpartition("/")[2]))
        where, named = f"{path}: {entry.name}", _NAME.match(entry.name)
        reason = _why_no_member(entry)
        if not reason and named is None:
            reason = "a member whose name has no extension"
        if reason or named is None:
            tally.leave_out(reason, where)
        elif entry.issparse():
            raise DataError(
                f"{where} is a sparse member, whose bytes do not follow one another; write it without --sparse"
            )
        else:
            name = entry.name.encode("utf-8", "backslashreplace").decode()
            yield Member(named[1], named[2].lower(), name, entry.offset_data, entry.size)


def _why_no_member(entry: tarfile.TarInfo) -> str:
    """The reason why an entry is no member of a sample; empty if it may be one."""
    if any(is_hidden(part) for part in entry.name.split("/")):
        return HIDDEN
    if _META.match(entry.name):
        return "a member of WebDataset's own"
    if entry.islnk() or entry.issym():
        return "a link in a tar file (write it with `tar --dereference --hard-dereference`)"
    return "" if entry.isreg() else "no regular file"


def _check_end(stream: BinaryIO, path: ShardFile, end: int) -> None:
    """Raise DataError if something follows the archive's end: a damaged header, or a second archive."""
    stream.seek(end)
    if stream.read(LARGEST_TAIL).strip(b"\0"):
        raise DataError(
            f"{path}: more follows after byte {end:,}, where the archive ends or is damaged; fetch it again, or "
            "write joined archives as one (`cat` does not join them)"
        )
