"""The trials of a search: what was tried, how it went, and which is best. No Ray, no files of other parts."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal

HOPELESS_AFTER = 3
"""So many trials that fail the same way before any other has ended say that all will."""


class TrialStatus(StrEnum):
    """How a trial stands."""

    RUNNING = "running"
    FINISHED = "finished"
    """It ran to its end."""
    STOPPED = "stopped"
    """The scheduler or the space's `stop` ended it early."""
    FAILED = "failed"


@dataclass(slots=True)
class Trial:
    """One setting and what came of it."""

    id: str
    config: dict[str, Any]
    """The drawn values by dotted key."""
    status: TrialStatus = TrialStatus.RUNNING
    metrics: dict[str, float] = field(default_factory=dict)
    """What the last evaluation reported, on the validation split."""
    seconds: float = 0.0
    reason: str | None = None
    """Why it failed or was stopped."""

    @property
    def has_ended(self) -> bool:
        """Whether it will not go on."""
        return self.status is not TrialStatus.RUNNING


@dataclass(frozen=True, slots=True)
class Goal:
    """A metric and which way it is better."""

    metric: str
    mode: Literal["min", "max"]

    def better(self, value: float, than: float) -> bool:
        """Whether one value is better than another."""
        return value > than if self.mode == "max" else value < than

    def sort_key(self, trial: Trial) -> float:
        """The smaller, the better."""
        value = trial.metrics[self.metric]
        return -value if self.mode == "max" else value


class Ledger:
    """All trials of a search, in the order in which they began."""

    def __init__(self, goals: Sequence[Goal], trials: Iterable[Trial] = ()) -> None:
        """Trials of an earlier start are kept."""
        self.goals = tuple(goals)
        self.trials = {trial.id: trial for trial in trials}
        self._since: dict[str, float] = {}
        self._ended = [trial.id for trial in self.trials.values() if trial.has_ended]

    @classmethod
    def read(cls, goals: Sequence[Goal], rows: Iterable[Mapping[str, Any]]) -> Ledger:
        """The ledger that `to_json` gave."""
        return cls(goals, [Trial(**{**row, "status": TrialStatus(row["status"])}) for row in rows])

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values, one row for each trial."""
        return [asdict(trial) for trial in self.trials.values()]

    # ------------------------------------------------------------------ what happens

    def begin(self, name: str, config: Mapping[str, Any], *, now: float | None = None) -> Trial:
        """A trial starts, or goes on after a resume."""
        trial = self.trials.setdefault(name, Trial(name, dict(config)))
        trial.status, trial.reason = TrialStatus.RUNNING, None
        self._since[name] = time.monotonic() if now is None else now
        return trial

    def report(self, name: str, metrics: Mapping[str, float]) -> None:
        """A trial was evaluated."""
        self.trials[name].metrics = dict(metrics)

    def end(self, name: str, status: TrialStatus, reason: str | None = None, *, now: float | None = None) -> None:
        """A trial will not go on."""
        trial = self.trials[name]
        trial.status, trial.reason = status, reason
        self.rest(name, now=now)
        self._ended.append(name)

    def rest(self, name: str, *, now: float | None = None) -> None:
        """A trial pauses until the search is resumed: its time stops."""
        since = self._since.pop(name, None)
        if since is not None:
            self.trials[name].seconds += (time.monotonic() if now is None else now) - since

    # ------------------------------------------------------------------ what follows

    @property
    def running(self) -> list[Trial]:
        """Those that go on."""
        return [trial for trial in self.trials.values() if not trial.has_ended]

    @property
    def hopeless(self) -> str | None:
        """Why the search should end: the first trials that ended all failed the same way."""
        first = [self.trials[name] for name in self._ended[:HOPELESS_AFTER]]
        if len(first) < HOPELESS_AFTER or any(trial.status is not TrialStatus.FAILED for trial in first):
            return None
        return first[0].reason if len({way(trial) for trial in first}) == 1 else None

    @property
    def ranked(self) -> list[Trial]:
        """Trials with a value of every metric, the best by the first metric on top; those that failed are left out."""
        usable = [
            trial
            for trial in self.trials.values()
            if trial.status is not TrialStatus.FAILED and all(goal.metric in trial.metrics for goal in self.goals)
        ]
        return sorted(usable, key=self.goals[0].sort_key)

    @property
    def front(self) -> list[Trial]:
        """The trials that no other one beats in every metric (Pareto), the best by the first metric on top."""
        ranked = self.ranked
        return [trial for trial in ranked if not any(self._dominates(other, trial) for other in ranked)]

    @property
    def best(self) -> Trial | None:
        """The best by the first metric; None before any was evaluated."""
        return next(iter(self.front), None)

    def _dominates(self, one: Trial, other: Trial) -> bool:
        """Whether `one` is as good in every metric and better in one."""
        keys = [(goal.sort_key(one), goal.sort_key(other)) for goal in self.goals]
        return all(mine <= its for mine, its in keys) and any(mine < its for mine, its in keys)


def way(trial: Trial) -> str:
    """What is alike in failures of the same kind: the first line without names and numbers of its own."""
    line = (trial.reason or "").partition("\n")[0].replace(trial.id, "TRIAL")
    return re.sub(r"\d+(\.\d+)?", "N", line)
