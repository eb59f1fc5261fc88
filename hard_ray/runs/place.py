"""The place of a run: a local folder, or a URL with a working copy of its own on every node."""

from __future__ import annotations

import contextlib
import functools
import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Protocol

from hard_ray.errors import HardrayError, MissingObjectError, RunFolderError, StorageError, command_line
from hard_ray.runs.folder import RunFolder, check_new_run, open_run
from hard_ray.storage.address import Remote, is_url
from hard_ray.storage.lock import UrlLock
from hard_ray.storage.mirror import Mirror, shown_path
from hard_ray.threads import in_background

logger = logging.getLogger(__name__)

SEND_EVERY_S = 10.0
"""Pause between two looks for what a job wrote into the working copy of a URL."""


def is_light(name: str) -> bool:
    """Whether a file of a run is none of a checkpoint: reports and drivers need no checkpoints."""
    return "checkpoints" not in PurePosixPath(name).parts[:-1]


def is_followed(name: str) -> bool:
    """Whether the driver reads a file while a run goes on; the state of a checkpoint says that its points are final."""
    return is_light(name) or PurePosixPath(name).name == "state.json"


class Located(Protocol):
    """What has a folder."""

    @property
    def path(self) -> Path:
        """The folder."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What is at a place: a run, unless something else is said."""

    noun: str = "run"
    again: tuple[str, ...] = ("distill", "--resume")
    """The command that continues it, but for its place."""
    check_new: Callable[[Path], None] = check_new_run
    """Raises a RunFolderError if a local folder cannot become one."""
    open: Callable[[Path], Located] = open_run
    """The one in a local folder; RunFolderError: there is none."""

    def command(self, place: object) -> str:
        """The command line that continues the one at a place."""
        return command_line(*self.again, place)


RUN = Kind()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run is written."""

    folder: Path
    mirror: Mirror | None = None
    """The URL that the folder is kept at; None: the folder is all there is."""
    owner: str | None = None
    """The name under which this process holds the URL's lock."""
    kind: Kind = RUN

    @property
    def url(self) -> str | None:
        """The URL; None: there is none."""
        return None if self.mirror is None else str(self.mirror.remote)

    def send(self) -> None:
        """Send the folder to its URL; StorageError: it could not be sent, and says what to do."""
        if self.mirror is None:
            return
        try:
            self.mirror.push()
        except StorageError as error:
            raise StorageError(
                f"{error}; the {self.kind.noun} is in {self.folder}, and `{self.kind.command(self.url)}` on this "
                "machine sends it"
            ) from None

    def send_last(self, say: Callable[[str], None], *, failed: bool) -> None:
        """Send the last state, as `send` does; once the work has failed, a second failure is only said."""
        try:
            self.send()
        except HardrayError as error:
            if not failed:
                raise
            say(str(error))


@contextlib.contextmanager
def new_place(output: Path, say: Callable[[str], None], kind: Kind = RUN) -> Iterator[Place]:
    """The place of a new run, held until the block ends.

    Raises:
        RunFolderError: it holds a run already, or another process holds the URL.
        StorageError: the URL cannot be read or written.
    """
    if not is_url(output):
        kind.check_new(output)
        yield Place(output, kind=kind)
        return
    mirror = Mirror.of(Remote.parse(output))
    check_new_url(mirror, kind)
    with _held(mirror, say, kind) as place:
        shutil.rmtree(mirror.folder, ignore_errors=True)  # of a run that never reached the URL, or left it
        yield place


@contextlib.contextmanager
def known_place(output: Path, say: Callable[[str], None], kind: Kind = RUN) -> Iterator[Place]:
    """The place of a run that goes on, held until the block ends; raises what `new_place` does, or if none is."""
    if not is_url(output):
        yield Place(kind.open(output).path, kind=kind)
        return
    mirror, inside = Mirror.find(Remote.parse(output))
    if inside:
        raise RunFolderError(f"{Remote.parse(output)} is a part of the run {mirror.remote}; name the run")
    with _held(mirror, say, kind) as place:
        mirror.pull(is_light)
        yield replace(place, folder=kind.open(place.folder).path)


@contextlib.contextmanager
def kept_place(output: Path, say: Callable[[str], None]) -> Iterator[Place]:
    """The place of a job that the same command continues, held until the block ends.

    Of a URL it is the working copy, brought up to date before the block, and sent every `SEND_EVERY_S` and at the end.

    Raises:
        RunFolderError: another process holds the URL.
        StorageError: the URL cannot be read, or the end of the job cannot be sent; it stays in the working copy.
    """
    if not is_url(output):
        yield Place(output)
        return
    mirror = Mirror.of(Remote.parse(output))
    with _held(mirror, say, RUN) as place:
        mirror.pull()
        with _sent(mirror):
            yield place


@contextlib.contextmanager
def _sent(mirror: Mirror) -> Iterator[None]:
    """Send the working copy while the block runs, and at its end; StorageError: the end could not be sent."""
    try:
        with in_background(functools.partial(_send_often, mirror), "send"):
            yield
    except BaseException:
        with contextlib.suppress(StorageError):
            mirror.finish()
        raise
    try:
        mirror.finish()
    except StorageError as error:
        raise StorageError(
            f"{error}; everything is in {mirror.folder}, and the same command on this machine sends it"
        ) from None


def _send_often(mirror: Mirror, ended: threading.Event) -> None:
    while not ended.wait(SEND_EVERY_S):
        mirror.push_later()


@contextlib.contextmanager
def own_place(remote: Remote) -> Iterator[Place]:
    """The place of a run at a URL that goes on where it has begun, and begins where it has not, held as `new_place`."""
    mirror = Mirror.of(remote)
    with _held(mirror, lambda _: None, RUN) as place:
        if not mirror.pull(is_light):
            shutil.rmtree(mirror.folder, ignore_errors=True)  # of a run that never reached the URL
        yield place


@contextlib.contextmanager
def _held(mirror: Mirror, say: Callable[[str], None], kind: Kind) -> Iterator[Place]:
    lock = UrlLock(mirror.remote)
    with lock.held(say):
        mirror.check = lock.check
        yield Place(mirror.folder, mirror, lock.owner, kind)


def check_new_url(mirror: Mirror, kind: Kind = RUN) -> None:
    """Check that no run is at a URL; RunFolderError: there is one."""
    if mirror.exists():
        raise RunFolderError(
            f"{mirror.remote} holds a {kind.noun} already; continue it with `{kind.command(mirror.remote)}`, or choose "
            "another --output"
        )


def check_new_output(output: Path, kind: Kind) -> None:
    """Check that a new one of a kind may begin in a folder or at a URL; RunFolderError: there is one already."""
    if is_url(output):
        check_new_url(Mirror.of(Remote.parse(output)), kind)
    else:
        kind.check_new(output)


def occupied(folder: Path, what: str) -> RunFolderError:
    """The error for an output that holds something else than `what` the command makes or continues."""
    return RunFolderError(f"{shown_path(folder)} already exists and holds no {what}; choose another --output")


def planned_folder(output: Path) -> Path:
    """The local folder that a new run at `output` would be written to; RunFolderError: the URL holds a run already."""
    if not is_url(output):
        return output
    mirror = Mirror.of(Remote.parse(output))
    check_new_url(mirror)
    return mirror.folder


def config_of(output: Path) -> Path | None:
    """The configuration of the run at a path or a URL; None: there is none."""
    if not is_url(output):
        path = RunFolder(output.expanduser()).config
        return path if path.is_file() else None
    mirror = Mirror.of(Remote.parse(output))
    if not mirror.exists():
        return None
    mirror.pull(lambda name: name == "config.yaml")
    config = RunFolder(mirror.folder).config
    if not config.is_file():
        raise occupied(mirror.folder, "run")
    return config


@contextlib.contextmanager
def read_place(path: str | Path, *, writes: bool = False) -> Iterator[str | Path]:
    """A run, or a part of one, as a local folder: of a URL the working copy, brought up to date without checkpoints.

    Args:
        path: a local path, any other name, or a URL.
        writes: whether the block writes into the run's folder; that is sent to the URL every `SEND_EVERY_S` and at the
            end, unless a run is going on there.

    Raises:
        StorageError: there is nothing at the URL, or it cannot be read or written.
    """
    if not is_url(path):
        yield path
        return
    try:
        mirror, inside = Mirror.find(Remote.parse(path))
    except MissingObjectError as error:
        raise RunFolderError(str(error)) from None
    with contextlib.ExitStack() as held:
        try:
            if writes:
                held.enter_context(_held(mirror, logger.warning, RUN))
                held.enter_context(_sent(mirror))
        except RunFolderError:
            logger.warning("%s is in use by a run: what is written stays in %s", mirror.remote.shown, mirror.folder)
        mirror.pull(is_light)
        yield mirror.folder / inside
