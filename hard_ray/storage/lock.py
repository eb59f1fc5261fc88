"""A lock at a URL: an object that its owner writes again and again.

S3 has no lock, and pyarrow no conditional write. The lock tells a second process from the first as long as the first
one's heartbeats arrive; two that start within a moment of each other both look again after `SETTLE_S` seconds, and one
of them gives way. A process that cannot reach the bucket for `STALE_S` seconds may lose it: it notices at its next
push, which then fails. Two pushes at the very same time are not kept apart.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hard_ray.errors import MissingObjectError, RunFolderError, StorageError
from hard_ray.storage import objects
from hard_ray.storage.address import Remote
from hard_ray.threads import in_background

logger = logging.getLogger(__name__)

LOCK = "lock.json"
BEAT_S = 10.0
STALE_S = 35.0
"""A lock that was not written for so long was left by a process that is gone."""
SETTLE_S = 1.0


@dataclass(slots=True)
class UrlLock:
    """The lock of a URL, by its owner's name, which may be given to other processes of the owner."""

    remote: Remote
    owner: str = field(default_factory=lambda: secrets.token_hex(8))
    _beats: int = 0

    @contextlib.contextmanager
    def held(self, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
        """Own the URL; RunFolderError: another process does. StorageError: the lock cannot be written."""
        self._take(say)
        try:
            with in_background(self._beat, "lock"):
                yield
        finally:
            with contextlib.suppress(StorageError):
                if (self._read() or {}).get("owner") == self.owner:
                    objects.delete(self.remote / LOCK)

    def check(self) -> None:
        """Raise a RunFolderError if another process owns the URL now."""
        found = self._read()
        if found is not None and found.get("owner") != self.owner:
            raise self._refusal(found)

    def _take(self, say: Callable[[str], None]) -> None:
        found = self._read()
        if found is not None and not _is_dead_here(found):
            say(
                f"{self.remote.shown} has a lock of {found.get('host')}; it is taken over if it is not renewed within "
                f"{STALE_S:g} s"
            )
            until = time.monotonic() + STALE_S
            while time.monotonic() < until:
                time.sleep(min(BEAT_S / 10, 1.0))
                now = self._read()
                if now is None:
                    break
                if now != found:
                    raise self._refusal(now)
        self._write()
        time.sleep(SETTLE_S)
        self.check()

    def _beat(self, ended: threading.Event) -> None:
        while not ended.wait(BEAT_S):
            try:
                self.check()
                self._write()
            except RunFolderError as error:
                logger.warning("%s", error)
                return
            except StorageError as error:
                logger.debug("the lock was not renewed: %s", error)

    def _write(self) -> None:
        self._beats += 1
        text = {"owner": self.owner, **_this_process(), "beat": self._beats}
        objects.write(self.remote / LOCK, json.dumps(text).encode())

    def _read(self) -> dict[str, object] | None:
        try:
            text = json.loads(objects.read(self.remote / LOCK))
        except MissingObjectError:
            return None
        except ValueError:
            return {}
        return text if isinstance(text, dict) else {}

    def _refusal(self, found: dict[str, object]) -> RunFolderError:
        return RunFolderError(
            f"{self.remote.shown} is in use by another hardray process, on {found.get('host', 'another machine')}; "
            "wait for it to end, or stop it"
        )


def _this_process() -> dict[str, object]:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    try:
        processes = str(Path("/proc/self/ns/pid").readlink())  # containers may share the host's name, not these
    except OSError:
        processes = ""
    return {"host": socket.gethostname(), "boot": boot, "processes": processes, "pid": os.getpid()}


def _is_dead_here(found: dict[str, object]) -> bool:
    """Whether the owner was a process of this machine that has ended."""
    here, pid = _this_process(), found.get("pid")
    is_here = all(found.get(name) == here[name] for name in ("host", "boot", "processes"))
    if not is_here or not isinstance(pid, int) or pid <= 1:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
