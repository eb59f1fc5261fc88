"""Recording the trials of a search as Ray Tune reports them."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hard_ray.config.space import SpaceConfig, better
from hard_ray.orchestration.search.left_groups import LeftGroups
from hard_ray.orchestration.search.trial import RESTING, STOP_PATIENCE_S, state_of
from hard_ray.runs.search_folder import SearchFolder
from hard_ray.runs.trials import Ledger, Trial, TrialStatus

Say = Callable[[str], None]


@dataclass(slots=True)
class TrialListener:
    """Records how each trial goes in the ledger, and reports its start and its end to the user."""

    space: SpaceConfig
    folder: SearchFolder
    ledger: Ledger
    left: LeftGroups
    say: Say
    changed: Callable[[Trial], None]
    """Called with a trial that has started, resumed or ended."""
    bring: Callable[[str], None] = lambda _: None
    """Brings the files of a trial by this name here, where nodes share no folder."""
    end_stop: Callable[[], None] = lambda: None
    """Takes back a request to stop that went to other nodes."""
    interrupted: bool = False
    """Whether the search was asked to stop and Tune ends."""
    _ends: dict[str, str] = field(default_factory=dict)
    _asked: float | None = None

    def began(self, name: str, config: dict[str, Any]) -> None:
        """Record that a trial starts or resumes."""
        trial = self.ledger.begin(name, config)
        self.left.begin(name, self.folder.trial(name).group, time.monotonic())
        self.changed(trial)
        self.say(f"trial {self._number(name)} starts: {settings(config)}")

    def evaluated(self, name: str, result: Mapping[str, Any]) -> None:
        """Record an evaluation."""
        measured = {key: value for key, value in result.items() if key.startswith("val/") or key in ("epoch", "step")}
        if measured and not self.interrupted:
            self.ledger.report(name, measured)

    def ended(self, name: str) -> None:
        """Record that a trial ended by itself, or was ended early."""
        self.left.end(name, time.monotonic())
        if self.interrupted:
            return
        self.bring(name)
        if self.folder.trial(name).is_finished:
            self._end(name, TrialStatus.FINISHED, None)
        else:
            epoch = self.ledger.trials[name].metrics.get("epoch", 0)
            reason = self._ends.get(name) or ("the search ended" if self.is_hopeless() else "behind others")
            self._end(name, TrialStatus.STOPPED, f"{reason}, at epoch {epoch:g}")

    def failed(self, name: str, error: str) -> None:
        """Record that a trial failed, with the reason in its folder or else this error."""
        self.left.end(name, time.monotonic())
        self.bring(name)
        _, reason = state_of(self.folder.trial(name))
        self._end(name, TrialStatus.FAILED, reason or error or "its process ended")

    def reached(self, name: str, result: Mapping[str, Any]) -> bool:
        """Whether the trial ends with this result, by the space's `stop`."""
        for key, value in self.space.stop.items():
            if key in result and (result[key] <= value if better(key) == "min" else result[key] >= value):
                self._ends[name] = f"{key} reached {value:g}"
                return True
        return False

    def is_hopeless(self) -> bool:
        """Whether the first trials all failed the same way."""
        return self.ledger.hopeless is not None

    def tick(self) -> None:
        """Free what early-stopped trials left reserved; after a request to stop, end Tune once all trials rest."""
        self.left.sweep()
        if not self.folder.stop_request.exists() or self.interrupted:
            return
        now = time.monotonic()
        self._asked = self._asked or now
        resting = all(state_of(self.folder.trial(trial.id))[0] == RESTING for trial in self.ledger.running)
        if resting or now - self._asked > STOP_PATIENCE_S:
            self._interrupt()

    def _interrupt(self) -> None:
        """Make Tune save its state and end."""
        self.interrupted = True
        for trial in self.ledger.running:
            self.ledger.rest(trial.id)
        self.folder.stop_request.unlink(missing_ok=True)
        self.end_stop()
        if threading.current_thread() is threading.main_thread():
            signal.raise_signal(signal.SIGUSR1)  # Tune handles it

    def _end(self, name: str, status: TrialStatus, reason: str | None) -> None:
        self.ledger.end(name, status, reason)
        trial = self.ledger.trials[name]
        self.changed(trial)
        measured = "  ".join(
            f"{goal.metric} {trial.metrics[goal.metric]:.4g}"
            for goal in self.ledger.goals
            if goal.metric in trial.metrics
        )
        why = f": {reason.partition(chr(10))[0]}" if reason else ""
        self.say(f"trial {self._number(name)} {status}{why}  {measured}".rstrip())

    def _number(self, name: str) -> str:
        number = list(self.ledger.trials).index(name) + 1
        return f"{number}/{self.space.count} ({name})"


def settings(config: Mapping[str, Any]) -> str:
    """A trial's settings on one line."""
    return " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in config.items()
    )
