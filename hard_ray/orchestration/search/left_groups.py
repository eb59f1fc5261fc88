"""Placement groups that early-stopped trials left reserved.

When a trial is ended from outside, Ray frees the placement group of its workers only by its dashboard, and not at all
if the workers had not started yet: the next trial would wait forever. Such a group has no name, and Ray reports no
owner. So the first worker of each trial notes its group in a file, and `LeftGroups.find` decides from these notes:

1. Consider the groups of this program with the bundles of a trial; record when each was first seen.
2. A trial is live while it runs, and for `GRACE_S` after its end: it writes a checkpoint, and Ray Train removes the
   group itself. The group that a live trial noted is held.
3. A live trial may also be in a group that it has not noted yet, if it has noted none, or if the noted group is gone
   because Ray Train made a new one after a worker's death. Such a group appears after the trial's start.
4. So a group is left over if no live trial noted it and it was seen before the first of those trials started.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

GRACE_S = 120.0
"""Seconds that an ended trial keeps its group."""

LOOK_EVERY_S = 2.0


@dataclass(slots=True)
class Holder:
    """A trial that may hold a group."""

    note: Path
    since: float
    ended: float | None = None

    @property
    def group(self) -> str | None:
        """The group that its first worker noted; None before that."""
        return (self.note.read_text(encoding="utf-8").strip() or None) if self.note.exists() else None


@dataclass(slots=True)
class LeftGroups:
    """Finds and removes the groups that no trial holds any more."""

    bundles: list[dict[str, float]]
    """The bundles of a trial's worker group; other groups are ignored."""
    job: str
    """The end of the groups' names; groups of other programs are ignored."""
    holders: dict[str, Holder] = field(default_factory=dict)
    _seen: dict[str, float] = field(default_factory=dict)
    _looked: float = 0.0

    def begin(self, trial: str, note: Path, now: float) -> None:
        """Record that a trial starts, and remove the note of an earlier start."""
        note.unlink(missing_ok=True)
        self.holders[trial] = Holder(note, now)

    def end(self, trial: str, now: float) -> None:
        """Record that a trial ended."""
        if trial in self.holders:
            self.holders[trial].ended = now

    def find(self, table: Mapping[str, Mapping[str, Any]], now: float) -> list[str]:
        """The left-over groups in Ray's table of placement groups."""
        # 1. groups of trials, and when each was first seen
        there = [name for name, group in table.items() if self._is_ours(name, group)]
        self._seen = {name: self._seen.get(name, now) for name in there}
        # 2. groups that live trials noted
        live = [who for who in self.holders.values() if who.ended is None or now - who.ended < GRACE_S]
        held = {who.group for who in live}
        # 3. the earliest start of a live trial that may be in a group without a note
        first = min((who.since for who in live if _may_hold_another(who, there)), default=float("inf"))
        # 4. groups that are not noted and older than that start
        return [name for name, seen in self._seen.items() if name not in held and seen < first]

    def _is_ours(self, name: str, group: Mapping[str, Any]) -> bool:
        reserved = [dict(bundle) for bundle in group["bundles"].values()]
        return name.endswith(self.job) and group["state"] != "REMOVED" and reserved == self.bundles

    def sweep(self) -> list[str]:
        """Remove the left-over groups; it may be called often, and looks every `LOOK_EVERY_S`."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return []
        self._looked = now
        left = self.find(placement_group_table(), now)
        remove(left)
        return left


def _may_hold_another(who: Holder, there: Iterable[str]) -> bool:
    """Whether a trial may be in a group that it has not noted."""
    return who.group is None or (who.ended is None and who.group not in there)


def remove(groups: Iterable[str]) -> None:
    """Remove placement groups."""
    for name in groups:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(name))))


def this_job() -> str:
    """The end of the names of this program's groups: its Ray job."""
    return str(ray.get_runtime_context().get_job_id())
