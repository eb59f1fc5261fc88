"""The trials of a search: their settings, states and results, and which is best."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal

HOPELESS_AFTER = 3
"""If the first so many trials to end fail the same way, all will: the search ends."""


class TrialStatus(StrEnum):
    """The state of a trial."""

    RUNNING = "running"
    FINISHED = "finished"
    """It ran to its end."""
    STOPPED = "stopped"
    """The scheduler or the space's `stop` ended it early."""
    FAILED = "failed"


MLFLOW_WORDS = {
    TrialStatus.RUNNING: None,
    TrialStatus.FINISHED: "FINISHED",
    TrialStatus.STOPPED: "KILLED",
    TrialStatus.FAILED: "FAILED",
}
"""MLflow's status of a trial's run; None: it goes on."""


@dataclass(slots=True)
class Trial:
    """One setting and its result."""

    id: str
    config: dict[str, Any]
    """The drawn values by dotted key."""
    status: TrialStatus = TrialStatus.RUNNING
    metrics: dict[str, float] = field(default_factory=dict)
    """Metrics of the last evaluation, on the validation split."""
    seconds: float = 0.0
    reason: str | None = None
    """Why it failed or was stopped."""

    @property
    def has_ended(self) -> bool:
        """Whether it has finished, failed or been stopped."""
        return self.status is not TrialStatus.RUNNING


@dataclass(frozen=True, slots=True)
class Goal:
    """A metric, and whether it is minimised or maximised."""

    metric: str
    mode: Literal["min", "max"]

    def better(self, value: float, than: float) -> bool:
        """Whether one value is better than another."""
        return value > than if self.mode == "max" else value < than

    def sort_key(self, trial: Trial) -> float:
        """A key for sorting: the smaller, the better."""
        value = trial.metrics[self.metric]
        return -value if self.mode == "max" else value


class Ledger:
    """All trials of a search, in the order of their start."""

    def __init__(self, goals: Sequence[Goal], trials: Iterable[Trial] = ()) -> None:
        self.goals = tuple(goals)
        self.trials = {trial.id: trial for trial in trials}
        self._since: dict[str, float] = {}
        self._ended = [trial.id for trial in self.trials.values() if trial.has_ended]

    @classmethod
    def read(cls, goals: Sequence[Goal], rows: Iterable[Mapping[str, Any]]) -> Ledger:
        """Restore a ledger from the rows of `to_json`."""
        return cls(goals, [Trial(**{**row, "status": TrialStatus(row["status"])}) for row in rows])

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values, one row for each trial."""
        return [asdict(trial) for trial in self.trials.values()]

    def begin(self, name: str, config: Mapping[str, Any], *, now: float | None = None) -> Trial:
        """Note that a trial starts, or continues after a resume."""
        trial = self.trials.setdefault(name, Trial(name, dict(config)))
        trial.status, trial.reason = TrialStatus.RUNNING, None
        self._since[name] = time.monotonic() if now is None else now
        return trial

    def report(self, name: str, metrics: Mapping[str, float]) -> None:
        """Note the metrics of a trial's evaluation."""
        self.trials[name].metrics = dict(metrics)

    def end(self, name: str, status: TrialStatus, reason: str | None = None, *, now: float | None = None) -> None:
        """Note that a trial has ended."""
        trial = self.trials[name]
        trial.status, trial.reason = status, reason
        self.rest(name, now=now)
        self._ended.append(name)

    def rest(self, name: str, *, now: float | None = None) -> None:
        """Stop a trial's clock until the search is resumed."""
        since = self._since.pop(name, None)
        if since is not None:
            self.trials[name].seconds += (time.monotonic() if now is None else now) - since

    @property
    def running(self) -> list[Trial]:
        """The trials that have not ended."""
        return [trial for trial in self.trials.values() if not trial.has_ended]

    @property
    def hopeless(self) -> str | None:
        """Why the search should end: the first trials to end all failed the same way. None: it need not."""
        first = [self.trials[name] for name in self._ended[:HOPELESS_AFTER]]
        if len(first) < HOPELESS_AFTER or any(trial.status is not TrialStatus.FAILED for trial in first):
            return None
        return first[0].reason if len({failure_pattern(trial) for trial in first}) == 1 else None

    @property
    def ranked(self) -> list[Trial]:
        """Trials with a value of every metric, without failed ones, the best by the first metric first."""
        usable = [
            trial
            for trial in self.trials.values()
            if trial.status is not TrialStatus.FAILED and all(goal.metric in trial.metrics for goal in self.goals)
        ]
        return sorted(usable, key=self.goals[0].sort_key)

    @property
    def front(self) -> list[Trial]:
        """The Pareto front: trials that no other one dominates, the best by the first metric first."""
        ranked = self.ranked
        return [trial for trial in ranked if not any(self._dominates(other, trial) for other in ranked)]

    @property
    def best(self) -> Trial | None:
        """The best by the first metric; None: no trial was evaluated yet."""
        return next(iter(self.front), None)

    def _dominates(self, one: Trial, other: Trial) -> bool:
        keys = [(goal.sort_key(one), goal.sort_key(other)) for goal in self.goals]
        return all(mine <= its for mine, its in keys) and any(mine < its for mine, its in keys)


def failure_pattern(trial: Trial) -> str:
    """The first line of a failure's reason without its trial's name and numbers: equal for failures of one kind."""
    line = (trial.reason or "").partition("\n")[0].replace(trial.id, "TRIAL")
    return re.sub(r"\d+(\.\d+)?", "N", line)
