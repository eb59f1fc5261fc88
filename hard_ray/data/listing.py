"""Listing of a folder: the wanted files below it, each real file once, with an account of all others.

Links are followed. A folder is listed once, so that a link to a folder above itself ends there.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hard_ray.data.account import Tally
from hard_ray.data.layout import (
    ARCHIVE,
    HEAD,
    HIDDEN,
    IMAGE_SUFFIXES,
    NO_IMAGE,
    TEMPORARY,
    is_hidden,
    suffix_among,
    suffix_of,
    why_no_image,
    why_no_image_inside,
)
from hard_ray.data.remote_folders import RemoteEntry, files_below, head_of, is_remote, remote_entries
from hard_ray.errors import DataError

Identity = int | str
"""Device and inode of a real file or folder in one number; its path, where a file system numbers none."""

Entry = os.DirEntry[str] | RemoteEntry

Judge = Callable[[str, Tally], str]
"""The reason why the file of a path is not wanted; empty if it is."""

BROKEN = "a link that leads nowhere"
SPECIAL = "no regular file"
NO_TEXT = "a name that is not UTF-8: rename it"
AGAIN = "a further link to a file that is used"
LOOP = "a link to a folder that is listed already"
HARMLESS = frozenset([HIDDEN, NO_IMAGE, ARCHIVE, TEMPORARY, AGAIN, LOOP])
"""Reasons to leave a file out that are no fault of an image."""
LINK = "(link to a folder)"
"""The suffix under which a link that is not followed is counted."""


class Listed(NamedTuple):  # in a third of a dataclass's time, a million times
    """A file that was found."""

    path: str
    """As reached, through links."""
    real: Identity
    """By the folder's entry, which can differ from what the file says; `each_once` asks that where there are links."""
    is_link: bool


def list_images(folder: str, tally: Tally) -> list[Listed]:
    """The images below a folder, sorted by path; what is not one is entered in the tally with its reason."""
    return list_files(folder, tally, judge_image, IMAGE_SUFFIXES)


def list_files(folder: str, tally: Tally, judge: Judge, suffixes: Collection[str] = frozenset()) -> list[Listed]:
    """The files below a folder that `judge` wants, sorted by path; the others are entered in the tally.

    `judge` wants each visible regular file whose name ends in one of the `suffixes`, so that it need not be asked.

    Raises DataError if a folder cannot be read.
    """
    return sorted(_Walk(folder, tally, judge, suffixes).wanted())


def each_once(found: Sequence[Listed], place: Callable[[str], str], tally: Tally) -> list[Listed]:
    """The files in their order, each real one once, known by its own path rather than a link's.

    Raises DataError if one file lies in two places: `place` says in words where a path lies.
    """
    if any(listed.is_link for listed in found):  # they are compared with what they lead to
        found = [Listed(each.path, identity(each.path), each.is_link) for each in found]
    elif len({listed.real for listed in found}) == len(found):
        return list(found)
    kept: dict[Identity, Listed] = {}
    for listed in sorted(found, key=lambda listed: listed.is_link):  # a stable sort: real files first
        first = kept.setdefault(listed.real, listed)
        if first is listed:
            continue
        here, there = place(listed.path), place(first.path)
        if here != there:
            raise DataError(
                f"{listed.path} and {first.path} are one file by a link, but it lies in {there} and in {here}; "
                "remove one of the two"
            )
        tally.leave_out(AGAIN, listed.path)
    return [listed for listed in found if kept[listed.real] is listed]


def judge_image(path: str, tally: Tally) -> str:
    """Why a file is no image: by its suffix, else by its first bytes."""
    name = os.path.basename(path)
    reason = why_no_image(name)
    if reason is not None:
        return reason
    try:
        if is_remote(path):
            reason = why_no_image_inside(head_of(path, HEAD))
        elif not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for a writer
            return SPECIAL
        else:
            with open(path, "rb") as stream:
                reason = why_no_image_inside(stream.read(HEAD))
    except FileNotFoundError:
        return BROKEN
    except OSError as error:
        return f"unreadable ({error.strerror})"
    if not reason:
        tally.by_content[suffix_of(name) or "no suffix"] += 1
    return reason


def folders_in(folder: str) -> list[str]:
    """The names of the folders in a folder, sorted, without hidden ones and links to a folder above them.

    Raises DataError if one is not UTF-8.
    """
    shown = (entry for entry in scan(folder) if not is_hidden(entry.name))
    names = [entry.name for entry in shown if _is_folder(entry) and not _is_loop(entry)]
    odd = next((name for name in names if not is_text(name)), None)
    if odd is not None:
        raise DataError(f"{folder} holds a folder {odd!r}, whose name is not UTF-8; rename it")
    return names


def all_below(found: Sequence[Listed], root: str) -> list[str]:
    """The path of each file relative to a folder above all of them, or reached from it by links."""
    start, length = f"{root}/", len(root) + 1
    paths = [listed.path for listed in found]
    return [path[length:] if path.startswith(start) else os.path.relpath(path, root) for path in paths]


def is_text(name: str) -> bool:
    """Whether a file's name is UTF-8; Python keeps the bytes of others as lone surrogates."""
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def holds_image(folder: str) -> bool:
    """Whether there is an image anywhere below a folder."""
    return _shows_image(folder) or any(True for _ in _Walk(folder, Tally(), judge_image, IMAGE_SUFFIXES).wanted())


def holds_image_itself(folder: str) -> bool:
    """Whether there is an image directly in a folder."""
    if _shows_image(folder):
        return True
    paths = (entry.path for entry in scan(folder) if not is_hidden(entry.name) and not _is_folder(entry))
    return any(not judge_image(path, Tally()) for path in paths)


def _shows_image(folder: str) -> bool:
    """Whether the names in a folder tell of an image; the folder is read up to the first one, in any order."""
    is_image = suffix_among(IMAGE_SUFFIXES)
    with (
        contextlib.suppress(OSError),
        contextlib.closing(_entries(folder)) as entries,
    ):  # `scan` says why it cannot be read
        return any(
            is_image(entry.name) and entry.name[0] != "." and entry.is_file(follow_symlinks=False) for entry in entries
        )
    return False


def _entries(folder: str) -> Generator[Entry]:
    if is_remote(folder):
        yield from remote_entries(folder)
    else:
        with os.scandir(folder) as entries:
            yield from entries


def tally_files_in(folder: str, tally: Tally, reason: str) -> None:
    """Enter the files directly in a folder as left out: hidden ones as that, images for `reason`."""
    for entry in scan(folder):
        if is_hidden(entry.name):
            tally_hidden(entry, tally)
        elif _is_folder(entry):
            if _is_loop(entry):
                tally.find(LINK)
                tally.leave_out(LOOP, entry.path)
        else:
            tally.find(suffix_of(entry.name))
            tally.leave_out(_broken(entry) or judge_image(entry.path, Tally()) or reason, entry.path)


def tally_below(folder: str, tally: Tally, reason: str) -> None:
    """Enter all files below a folder as left out: images for `reason`, others as what they are."""
    known = Counter(tally.by_content)  # of images that are used
    for listed in list_images(folder, tally):
        tally.leave_out(reason, listed.path)
    tally.by_content = known


def tally_hidden(entry: Entry, tally: Tally) -> None:
    """Enter a hidden file, or each file below a hidden folder, as left out."""
    below = [entry.path]
    if isinstance(entry, RemoteEntry):
        below = files_below(entry.path) if entry.is_folder else below
    elif entry.is_dir(follow_symlinks=False):
        below = [os.path.join(where, name) for where, _, names in sorted(os.walk(entry.path)) for name in names]
    for path in below:
        tally.find(suffix_of(os.path.basename(path)))
        tally.leave_out(HIDDEN, path)


def scan(folder: str) -> Sequence[Entry]:
    """The entries of a folder, sorted by name; raises DataError if it cannot be read."""
    if is_remote(folder):
        return sorted(remote_entries(folder), key=lambda entry: entry.name)
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"{folder}: the folder cannot be read ({error.strerror}); make it readable, or move it out of the data"
        ) from None


def identity(path: str) -> Identity:
    """What tells one real file or folder from another; raises OSError if the path leads nowhere."""
    if is_remote(path):
        return path
    return _identity(os.stat(path), path)


def _real(path: str) -> str:
    """A path without links."""
    return path if is_remote(path) else os.path.realpath(path)


def _identity(found: os.stat_result, path: str) -> Identity:
    return found.st_dev << 64 | found.st_ino if found.st_ino else os.path.realpath(path)


@dataclass(slots=True)
class _Walk:
    """One way through a folder and, after it, through what its links lead to."""

    folder: str
    tally: Tally
    judge: Judge
    suffixes: Collection[str]
    """Of names that are wanted whatever `judge` says."""
    listed: set[Identity] = field(default_factory=set)
    links: list[Entry] = field(default_factory=list)

    def wanted(self) -> Iterator[Listed]:
        """Each file that is wanted; those in folders that are no links come first."""
        self.listed.update(_folders_above(self.folder))
        yield from self._below(self.folder)
        while self.links:
            link = self.links.pop(0)
            if identity(link.path) in self.listed:
                self.tally.find(LINK)
                self.tally.leave_out(LOOP, link.path)
            else:
                yield from self._below(link.path)

    def _below(self, folder: str) -> Iterator[Listed]:
        waiting, wanted = deque([folder]), suffix_among(self.suffixes)
        while waiting:
            folder = waiting.popleft()
            self.listed.add(identity(folder))
            device = 0 if is_remote(folder) else os.stat(folder).st_dev << 64
            ordinary: Counter[str] = Counter()
            for entry in scan(folder):
                name = entry.name
                suffix = wanted(name)
                if suffix and name[0] != "." and name.isascii() and entry.is_file(follow_symlinks=False):
                    inode = entry.inode()
                    ordinary[suffix] += 1
                    yield Listed(entry.path, device | inode if inode else _real(entry.path), False)
                elif is_hidden(name):
                    tally_hidden(entry, self.tally)
                elif not _is_folder(entry):
                    listed = _identified(entry.path, entry.is_symlink(), self.tally) if self._wants(entry) else None
                    if listed is not None:
                        yield listed
                elif entry.is_symlink():
                    self.links.append(entry)
                elif identity(entry.path) not in self.listed:  # it is, where a link led above the start
                    waiting.append(entry.path)
            self.tally.found.update(ordinary)

    def _wants(self, entry: Entry) -> bool:
        self.tally.find(suffix_of(entry.name))
        reason = _broken(entry) or self.judge(entry.path, self.tally)
        if not reason and not is_text(entry.path):
            reason = NO_TEXT
        if reason:
            self.tally.leave_out(reason, entry.path)
        return not reason


def _is_folder(entry: Entry) -> bool:
    """Whether an entry is a folder or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_loop(entry: Entry) -> bool:
    """Whether an entry is a link to a folder above it."""
    return entry.is_symlink() and identity(entry.path) in _folders_above(entry.path)


def _folders_above(path: str) -> set[Identity]:
    """The folders that hold a path, as written and once its links are resolved; none for a bucket, without links."""
    if is_remote(path):
        return set()
    return {identity(above) for start in (path, os.path.realpath(path)) for above in list(_upwards(start))[1:]}


def _broken(entry: Entry) -> str:
    """The reason why a link is not followed; empty if the entry is no link, or leads somewhere."""
    return BROKEN if entry.is_symlink() and not os.path.exists(entry.path) else ""


def _identified(path: str, is_link: bool, tally: Tally) -> Listed | None:
    """The file of a path; None, and an entry in the tally, if it is none that can be read."""
    if is_remote(path):
        return Listed(path, path, is_link)
    try:
        found = os.stat(path)
    except OSError as error:
        tally.leave_out(f"unreadable ({error.strerror})", path)
        return None
    if not stat.S_ISREG(found.st_mode):
        tally.leave_out(SPECIAL, path)
        return None
    return Listed(path, _identity(found, path), is_link)


def _upwards(path: str) -> Iterator[str]:
    """A path and all folders above it."""
    while True:
        yield path
        above = os.path.dirname(path)
        if above == path:
            return
        path = above
