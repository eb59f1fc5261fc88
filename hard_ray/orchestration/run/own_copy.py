"""A worker's own working copy of a run that is kept at a URL: nodes share no folder, the bucket is between them."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from hard_ray.errors import StorageError
from hard_ray.files import write_text
from hard_ray.orchestration.run.plan import WorkerPlan
from hard_ray.ranks import Ranks
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.place import is_light
from hard_ray.storage import objects
from hard_ray.storage.address import Remote
from hard_ray.storage.lock import UrlLock
from hard_ray.storage.mirror import Mirror
from hard_ray.threads import in_background

logger = logging.getLogger(__name__)

STOP = "stop"
"""The object whose presence asks for a checkpoint and the end."""
LOOK_EVERY_S = 3.0
OLD_AFTER_S = 60.0
"""A request to stop that was in the folder for so long is at the URL, too, or was left by a driver that is gone."""


@dataclass(frozen=True, slots=True)
class OwnCopy:
    """What a worker trains in."""

    plan: WorkerPlan
    """The plan, with this node's folders."""
    send_later: Callable[[], None] = lambda: None
    """Send the folder's state in the background."""
    send: Callable[[], object] = lambda: None
    """Send the folder's state, and wait for it."""


@contextlib.contextmanager
def own_copy(plan: WorkerPlan, ranks: Ranks) -> Iterator[OwnCopy]:
    """The plan in this node's folders; the first rank's folder goes to the URL at the end.

    Every rank begins with the checkpoints that the first one has: it may have some that were not sent before it was
    lost, and computed them to the same bits as any other worker would.

    Raises:
        StorageError: the URL cannot be read, or the last state cannot be sent; it stays in the folder.
    """
    if plan.url is None:
        yield OwnCopy(plan)
        return
    remote = Remote.parse(plan.url)
    mirror = Mirror.of(remote)
    if plan.owner is not None:
        mirror.check = UrlLock(remote, plan.owner).check
    root = plan.stop.parent
    here = replace(
        plan,
        runs=tuple(replace(run, folder=mirror.folder / run.folder.relative_to(root)) for run in plan.runs),
        stop=RunFolder(mirror.folder).stop_request,
        group_note=None if plan.group_note is None else mirror.folder / plan.group_note.relative_to(root),
    )
    if ranks.is_first:
        mirror.pull()
        mirror.push()
        ranks.gather(0)
    else:
        ranks.gather(0)
        mirror.match(lambda name: not is_light(name))
    ranks.gather(0)
    if not ranks.is_first:
        yield OwnCopy(here)
        return
    with _stop_watched(here, remote):
        try:
            yield OwnCopy(here, mirror.push_later, mirror.push)
        except BaseException:
            with contextlib.suppress(StorageError):
                mirror.finish()
            raise
        mirror.finish()


@contextlib.contextmanager
def _stop_watched(plan: WorkerPlan, remote: Remote) -> Iterator[None]:
    """Make the file of a request to stop when its object appears, which the driver writes on Ctrl-C."""
    mark = f"{plan.owner}\n"
    with contextlib.suppress(OSError):
        is_old = time.time() - plan.stop.stat().st_mtime > OLD_AFTER_S
        if is_old or plan.stop.read_text(encoding="utf-8") not in ("", mark):
            plan.stop.unlink()  # of an earlier run, whose driver was on this node or which was killed before it stopped

    def watch(ended: threading.Event) -> None:
        while not ended.wait(LOOK_EVERY_S):
            with contextlib.suppress(StorageError, OSError):
                if objects.stat(remote / STOP) is not None and not plan.stop.exists():
                    write_text(plan.stop, mark)

    try:
        with in_background(watch, "stop"):
            yield
    finally:
        with contextlib.suppress(OSError):
            if plan.stop.read_text(encoding="utf-8") == mark:
                plan.stop.unlink()
