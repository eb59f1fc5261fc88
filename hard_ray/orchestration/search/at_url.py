"""A search at a URL, as its driver and its trials' processes see it: nodes share no folder, the bucket is between them.

The driver alone sends the search's own files, Ray Tune's state among them. A trial is a run at a URL of its own, which
the trial's process and its workers send, and the driver brings here what it reads of it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hard_ray.errors import HardrayError, StorageError
from hard_ray.orchestration.run.own_copy import LOOK_EVERY_S as LOOK_FOR_STOP_S
from hard_ray.orchestration.run.own_copy import STOP
from hard_ray.runs.place import Place
from hard_ray.runs.search_folder import SearchFolder
from hard_ray.storage import objects
from hard_ray.storage.address import Remote
from hard_ray.threads import in_background

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
KEEP_EVERY_S = 10.0
"""Pause between two looks for what running trials have sent, and between two pushes of the search's files."""
QUIET_S = 0.3
"""Ray Tune writes its files in place: they are sent only if it has not written for so long."""


@dataclass(slots=True)
class Keeper:
    """Keeps a search's folder at its URL, from the driver; for a search in a local folder it does nothing."""

    folder: SearchFolder
    place: Place
    _wanted: threading.Event = field(init=False, default_factory=threading.Event)
    _stopping: bool = field(init=False, default=False)
    """Whether a request to stop was passed on, or is answered: no other one is looked for."""

    def bring(self, name: str) -> None:
        """Bring what a trial has sent here; a bucket that cannot be read is only said."""
        try:
            self.folder.trial(name).bring()
        except StorageError as error:
            logger.warning("what the trial %s did is not known: %s", name, error)

    def send_soon(self) -> None:
        """Send the search's files in the background."""
        self._wanted.set()

    def end_stop(self) -> None:
        """Take a request to stop back: it was answered."""
        self._stopping = True
        if self.place.mirror is not None:
            with contextlib.suppress(StorageError):
                objects.delete(self.place.mirror.remote / STOP)

    @contextlib.contextmanager
    def kept(self, running: Callable[[], Iterable[str]]) -> Iterator[None]:
        """Until the block ends, send the search's files, bring those of running trials, and pass on a request to stop.

        A request that an earlier start left at the URL is removed first; StorageError: it cannot be.
        """
        mirror = self.place.mirror
        if mirror is None:
            yield
            return
        objects.delete(mirror.remote / STOP)
        try:
            with in_background(functools.partial(self._keep, running), "search"):
                yield
        finally:
            self.end_stop()
            with contextlib.suppress(HardrayError):  # the search's end tries again, and says it
                mirror.finish()

    def _keep(self, running: Callable[[], Iterable[str]], ended: threading.Event) -> None:
        assert self.place.mirror is not None
        stop = SearchStop(self.folder)
        sent = brought = time.monotonic()
        while not ended.wait(LOOK_EVERY_S):
            now = time.monotonic()
            with contextlib.suppress(StorageError, OSError):
                self._pass_stop(stop)
                if self._stopping or now - brought > KEEP_EVERY_S:
                    brought = now
                    for name in running():
                        self.folder.trial(name).bring()
            if (self._wanted.is_set() or now - sent > KEEP_EVERY_S) and is_quiet(self.folder.tuner):
                self._wanted.clear()
                sent = now
                self.place.mirror.push_later()

    def _pass_stop(self, stop: SearchStop) -> None:
        """Write the object that asks trials to stop on Ctrl-C, and ask the driver if somebody else wrote it."""
        if self._stopping:
            return
        if self.folder.stop_request.exists():
            objects.write(stop.remote, b"")
            self._stopping = True
        elif stop.is_asked() and not self._stopping:
            self.folder.stop_request.touch()


@dataclass(slots=True)
class SearchStop:
    """The request to stop a whole search, as a process on any node sees it."""

    folder: SearchFolder
    _looked: float = field(init=False, default=float("-inf"))
    _asked: bool = field(init=False, default=False)

    @property
    def remote(self) -> Remote:
        """The object whose presence is the request; only of a search at a URL."""
        assert self.folder.url is not None
        return Remote.parse(self.folder.url) / STOP

    def is_asked(self) -> bool:
        """Whether the search is asked to stop; at a URL it is looked for once in some seconds."""
        if self.folder.url is None:
            return self.folder.stop_request.exists()
        if time.monotonic() - self._looked > LOOK_FOR_STOP_S:
            try:
                self._asked = objects.stat(self.remote) is not None
            except StorageError as error:
                logger.debug("a request to stop was not looked for: %s", error)
            self._looked = time.monotonic()
        return self._asked


def is_quiet(folder: Path) -> bool:
    """Whether nobody has written to a folder's own files for a moment."""
    newest = 0.0
    for path in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # Tune renames what it writes
            if path.is_file():
                newest = max(newest, path.stat().st_mtime)
    return not 0 <= time.time() - newest < QUIET_S
