"""What early-stopped trials leave reserved, and how it is told from what others need.

Ray frees the placement group of a worker group that was ended from outside with the help of its dashboard, and not
at all where the trial was ended before its workers had started: the next trial would wait for ever. Such a group has
no name and no owner that Ray tells of. So each trial's first worker writes down which group it is in, and a group is
a left-over once it belongs to no trial that goes on and can belong to none that has not written yet.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import (
    PlacementGroup,
    placement_group_table,
    remove_placement_group,
)

GRACE_S = 120.0
"""How long an ended trial keeps its group: it writes a checkpoint, and Ray Train takes the group down itself."""

LOOK_EVERY_S = 2.0


@dataclass(slots=True)
class Holder:
    """A trial that may hold a group."""

    note: Path
    since: float
    ended: float | None = None

    @property
    def group(self) -> str | None:
        """The group that its workers are in; None before they have said so."""
        return self.note.read_text(encoding="utf-8").strip() if self.note.exists() else None


@dataclass(slots=True)
class LeftGroups:
    """Finds the groups that no trial holds any more."""

    bundles: list[dict[str, float]]
    """What a trial's worker group reserves; other groups are not looked at."""
    job: str
    """The end of the groups' names: groups of other programs are not looked at."""
    holders: dict[str, Holder] = field(default_factory=dict)
    _seen: dict[str, float] = field(default_factory=dict)
    _looked: float = 0.0

    def begin(self, trial: str, note: Path, now: float) -> None:
        """A trial starts; what an earlier start of it noted is no longer true."""
        note.unlink(missing_ok=True)
        self.holders[trial] = Holder(note, now)

    def end(self, trial: str, now: float) -> None:
        """A trial was ended."""
        if trial in self.holders:
            self.holders[trial].ended = now

    def find(self, table: Mapping[str, Mapping[str, Any]], now: float) -> list[str]:
        """The left-over groups of a table as Ray gives it."""
        there = [name for name, group in table.items() if self._is_ours(name, group)]
        self._seen = {name: self._seen.get(name, now) for name in there}
        live = [who for who in self.holders.values() if who.ended is None or now - who.ended < GRACE_S]
        held = {who.group for who in live}
        first = min((who.since for who in live if _may_hold_another(who, there)), default=float("inf"))
        return [name for name, seen in self._seen.items() if name not in held and seen < first]

    def _is_ours(self, name: str, group: Mapping[str, Any]) -> bool:
        reserved = [dict(bundle) for bundle in group["bundles"].values()]
        return name.endswith(self.job) and group["state"] != "REMOVED" and reserved == self.bundles

    def sweep(self) -> list[str]:
        """Remove what is left over; called often, it looks now and then."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return []
        self._looked = now
        left = self.find(placement_group_table(), now)
        remove(left)
        return left


def _may_hold_another(who: Holder, there: Iterable[str]) -> bool:
    """Whether a trial can be in a group that it has not noted: Ray Train makes a new one after a worker's death."""
    return who.group is None or (who.ended is None and who.group not in there)


def remove(groups: Iterable[str]) -> None:
    """Give back what the groups reserve."""
    for name in groups:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(name))))


def this_job() -> str:
    """The end of the names of groups that this program made."""
    return str(ray.get_runtime_context().get_job_id())
