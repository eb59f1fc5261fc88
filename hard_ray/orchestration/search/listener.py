"""Who follows the trials of a search."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hard_ray.config.space import better
from hard_ray.orchestration.run.reporter import Silent
from hard_ray.orchestration.search.left_groups import LeftGroups
from hard_ray.orchestration.search.trial import RESTING, STOP_PATIENCE_S, state_of
from hard_ray.runs.background import Tracking
from hard_ray.runs.trials import Ledger, Trial, TrialStatus

if TYPE_CHECKING:
    from hard_ray.orchestration.search.driver import SearchDriver

Say = Callable[[str], None]


class TrialListener:
    """Writes down what Tune tells of trials, and says what is worth a line."""

    def __init__(self, driver: SearchDriver, left: LeftGroups, tracking: Tracking | None) -> None:
        self.driver = driver
        self.left = left
        self.tracking = tracking
        self.interrupted = False
        self._ends: dict[str, str] = {}
        self._asked: float | None = None

    @property
    def ledger(self) -> Ledger:
        """The search's trials."""
        return self.driver.ledger

    def began(self, name: str, config: dict[str, Any]) -> None:
        """A trial starts or goes on."""
        trial = self.ledger.begin(name, config)
        self.left.begin(name, self.driver.folder.trial(name).group, time.monotonic())
        self._follow(trial)
        self.driver.say(f"trial {self._number(name)} starts: {settings(config)}")

    def heard(self, name: str, result: Mapping[str, Any]) -> None:
        """A trial was evaluated."""
        measured = {key: value for key, value in result.items() if key.startswith("val/") or key in ("epoch", "step")}
        if measured and not self.interrupted:
            self.ledger.report(name, measured)

    def ended(self, name: str) -> None:
        """A trial ended by itself, or was ended early."""
        self.left.end(name, time.monotonic())
        if self.interrupted:
            return
        if self.driver.folder.trial(name).is_finished:
            self._end(name, TrialStatus.FINISHED, None)
        else:
            epoch = self.ledger.trials[name].metrics.get("epoch", 0)
            reason = self._ends.get(name) or ("the search ended" if self.is_hopeless() else "behind others")
            self._end(name, TrialStatus.STOPPED, f"{reason}, at epoch {epoch:g}")

    def failed(self, name: str, error: str) -> None:
        """A trial failed."""
        self.left.end(name, time.monotonic())
        _, said = state_of(self.driver.folder.trial(name))
        self._end(name, TrialStatus.FAILED, said or error or "its process ended")

    def reached(self, name: str, result: Mapping[str, Any]) -> bool:
        """Whether the trial ends here: the space's `stop`."""
        for key, value in self.driver.search.space.stop.items():
            if key in result and (result[key] <= value if better(key) == "min" else result[key] >= value):
                self._ends[name] = f"{key} reached {value:g}"
                return True
        return False

    def is_hopeless(self) -> bool:
        """Whether the first trials all failed the same way."""
        return self.ledger.hopeless is not None

    def tick(self) -> None:
        """Give back what early-stopped trials left, and end the search once it was asked to stop and trials rest."""
        self.left.sweep()
        if not self.driver.folder.stop_request.exists() or self.interrupted:
            return
        now = time.monotonic()
        self._asked = self._asked or now
        running = self.ledger.running
        resting = all(state_of(self.driver.folder.trial(trial.id))[0] == RESTING for trial in running)
        if resting or now - self._asked > STOP_PATIENCE_S:
            self._interrupt()

    def _interrupt(self) -> None:
        """Have Tune save where it stands and end."""
        self.interrupted = True
        for trial in self.ledger.running:
            self.ledger.rest(trial.id)
        self.driver.folder.stop_request.unlink(missing_ok=True)
        if threading.current_thread() is threading.main_thread():
            signal.raise_signal(signal.SIGUSR1)  # Tune listens to it

    def _end(self, name: str, status: TrialStatus, reason: str | None) -> None:
        self.ledger.end(name, status, reason)
        trial = self.ledger.trials[name]
        self._follow(trial)
        self.driver.trial_ended()
        measured = "  ".join(
            f"{goal.metric} {trial.metrics[goal.metric]:.4g}"
            for goal in self.ledger.goals
            if goal.metric in trial.metrics
        )
        why = f": {reason.partition(chr(10))[0]}" if reason else ""
        self.driver.say(f"trial {self._number(name)} {status}{why}  {measured}".rstrip())

    def _follow(self, trial: Trial) -> None:
        if self.tracking is not None:
            self.driver.follow(self.tracking, trial)

    def _number(self, name: str) -> str:
        number = list(self.ledger.trials).index(name) + 1
        return f"{number}/{self.driver.search.space.count} ({name})"


class TeacherTraining(Silent):
    """Tells of the training of a search's teacher what it says, and shows no progress."""

    def __init__(self, say: Say) -> None:
        self.tell = say

    def say(self, text: str) -> None:
        """A sentence for the user."""
        self.tell(text)


def settings(config: Mapping[str, Any]) -> str:
    """A trial's settings on one line."""
    return " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in config.items()
    )
