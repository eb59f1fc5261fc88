"""One trial of a search: a run like `hardray distill` makes, which tells of each evaluation and can be ended.

A trial's run goes on in a thread. Whoever asks for the next evaluation waits for it; whoever ends the trial early has
it write a checkpoint and take its workers down itself, so that nothing stays reserved.
"""

from __future__ import annotations

import os
import pickle
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from hard_ray.config.layers import read_layer
from hard_ray.config.loader import validate
from hard_ray.config.run import RunConfig
from hard_ray.config.space import with_values
from hard_ray.data.index import ImageIndex
from hard_ray.data.schedule import train_schedule
from hard_ray.distillation.teacher import TeacherSpec
from hard_ray.errors import HardrayError, StoppedError
from hard_ray.files import make_folder, read_json, write_json
from hard_ray.orchestration.cluster.connection import REPORT_INTERVAL_S, quiet_ray
from hard_ray.orchestration.cluster.demand import DataShares
from hard_ray.orchestration.pool.client import PoolAddress
from hard_ray.orchestration.run.driver import Driver
from hard_ray.orchestration.run.plan import RunPlan, WorkerPlan
from hard_ray.orchestration.run.reporter import Reporter
from hard_ray.runs.log import LogTail
from hard_ray.runs.search_folder import SearchFolder, TrialFolder

POLL_S = 0.5
STOP_PATIENCE_S = 90.0
"""How long a trial that is ended early may take to write a checkpoint and take its workers down."""

RESTING, FAILED = "resting", "failed"

Metrics = dict[str, float]


class TrialFailedError(HardrayError):
    """A trial cannot go on; Tune records it and goes on with others."""


@dataclass(frozen=True, slots=True)
class TrialOrder:
    """What every trial of a search is told."""

    base: RunConfig
    """Resolved for the cluster."""
    source: str
    """The space, for messages."""
    folder: Path
    """The search's."""
    teacher: TeacherSpec | None
    pool: PoolAddress | None
    """The pool that all trials share; None: every student worker holds the teacher itself."""
    identity: str | None
    """Whom all trials learn from."""
    data: DataShares
    """What the Ray Data executions of one trial may use."""

    def config(self, values: Mapping[str, Any]) -> RunConfig:
        """The base configuration with a trial's settings.

        Raises:
            ConfigError: they cannot be used together.
        """
        return with_values(self.base, values, self.source)


def without_extras(config: RunConfig) -> RunConfig:
    """What a trial leaves out: controls, and what is measured on the final split beside the validation suites."""
    return config.model_copy(
        update={
            "experiment": config.experiment.model_copy(update={"controls": ()}),
            "validation": config.validation.model_copy(update={"final": ()}),
        }
    )


CarryOut = Callable[[RunConfig, TrialFolder, Reporter], None]


class TrialRun:
    """A trial's run in a thread of this process."""

    def __init__(self, order: TrialOrder, name: str, values: Mapping[str, Any], index: ImageIndex) -> None:
        """Nothing is started before the first call of `next`."""
        self.order = order
        self.index = index
        self.search = SearchFolder(order.folder)
        self.folder = self.search.trial(name)
        self.values = {key: plain(value) for key, value in values.items()}
        self.carry_out: CarryOut = self._distill
        self.last: Metrics = {}
        self._events: queue.Queue[Metrics | BaseException | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="trial", daemon=True)
        self._began = False
        self._is_last: Callable[[Mapping[str, Any]], bool] = lambda _: False

    def next(self) -> dict[str, Any]:
        """Wait for the next evaluation; the one at the end comes with `done`, once the run has ended.

        Raises:
            TrialFailedError: the run failed.
        """
        if not self._began:
            self._began = True
            self._thread.start()
        while True:
            event = self._events.get()
            if isinstance(event, StoppedError):
                self._rest()
                return dict(self.last)
            if isinstance(event, BaseException):
                raise self._failure(event) from event
            if event is None:
                return {**self.last, "done": True}
            self.last = {key: value for key, value in event.items() if key != "student_step"}
            if not self._is_last(event):
                return dict(self.last)

    def stop(self, patience_s: float = STOP_PATIENCE_S) -> bool:
        """End the run with a checkpoint; whether it ended in time."""
        end = time.monotonic() + patience_s
        while self._thread.is_alive() and time.monotonic() < end:
            self.folder.stop_request.touch()
            self._thread.join(POLL_S)
        return not self._thread.is_alive()

    # ------------------------------------------------------------------ in the thread

    def _work(self) -> None:
        try:
            make_folder(self.folder.path)
            self.folder.note.unlink(missing_ok=True)
            config = self._config()
            per_epoch = train_schedule(
                self.index, config.data, batch_size=config.optim.batch_size, seed=config.seed
            ).batches_per_epoch
            total = config.optim.total_updates(per_epoch)
            self._is_last = lambda point: point["student_step"] >= total
            reporter = Evaluations(self.search, self.folder, per_epoch, self._events.put)
            self.carry_out(config, self.folder, reporter)
        except BaseException as error:  # handed to the thread that waits
            self._events.put(error)
        else:
            self._events.put(None)

    def _config(self) -> RunConfig:
        """What the trial began with, or begins with."""
        if self.folder.config.exists():
            return validate([read_layer(self.folder.config)], source=str(self.folder.config))
        return without_extras(self.order.config(self.values))

    def _distill(self, config: RunConfig, folder: TrialFolder, reporter: Reporter) -> None:
        """As `hardray distill`, with the search's teacher."""
        order = self.order
        driver = Driver(config, self.index, folder, reporter)
        driver.check()
        plan = WorkerPlan(
            driver.plans(train_teacher=False),
            order.teacher,
            order.pool,
            order.data,
            folder.stop_request,
            teacher_identity=order.identity,
            group_note=folder.group,
        )
        driver.write_configs(plan.runs)
        with folder.locked():
            driver.carry_out(plan)

    # ------------------------------------------------------------------ how it ends

    def _failure(self, error: BaseException) -> TrialFailedError:
        kind = "" if isinstance(error, HardrayError) else f"{type(error).__name__}: "
        reason = f"{kind}{str(error).strip() or 'no reason given'}"
        write_json(self.folder.note, {"state": FAILED, "reason": reason})
        return TrialFailedError(reason)

    def _rest(self) -> None:
        """The whole search was asked to stop: say that nothing is lost, and wait to be ended."""
        write_json(self.folder.note, {"state": RESTING})
        while self.search.stop_request.exists():
            time.sleep(POLL_S)


class Evaluations:
    """Hears of a trial's evaluations from its log, and of a stop of the whole search."""

    def __init__(
        self, search: SearchFolder, folder: TrialFolder, per_epoch: int, tell: Callable[[Metrics], None]
    ) -> None:
        """What an earlier start logged is told again: a scheduler forgets it at a resume."""
        self.search = search
        self.folder = folder
        self.per_epoch = per_epoch
        self.tell = tell
        self._told = -1
        self._tail = LogTail()

    def say(self, text: str) -> None:
        """Nothing: the search's driver speaks for its trials."""

    def watch(self, plans: tuple[RunPlan, ...]) -> None:
        """Tell what is new."""
        if self.search.stop_request.exists():
            self.folder.stop_request.touch()
        for point in self._tail.read(self.folder.metrics):
            if point["kind"] == "val" and point["step"] > self._told:
                self._told = point["step"]
                self.tell(evaluation(point, self.per_epoch))
        self._tail.advance()

    def close(self) -> None:
        """The run is over; what was logged last is told."""
        self.watch(())


def evaluation(point: Mapping[str, Any], per_epoch: int) -> Metrics:
    """What Tune is told of a logged evaluation: the validation split's numbers, and when."""
    measured = {key: float(value) for key, value in point.items() if key.startswith("val/")}
    return {
        **measured,
        "step": point["step"],
        "epoch": point["step"] // per_epoch,
        "student_step": point["student_step"],
    }


def plain(value: Any) -> Any:
    """A NumPy number as Python's."""
    return value.item() if hasattr(value, "item") else value


def state_of(folder: TrialFolder) -> tuple[str | None, str | None]:
    """What a trial's process said of itself last: its state and a reason."""
    note = read_json(folder.note, {})
    return note.get("state"), note.get("reason")


class TrialActor(tune.Trainable):
    """A trial as Tune runs it: one step is one evaluation."""

    def setup(self, config: dict[str, Any], told: bytes = b"", index: ImageIndex | None = None) -> None:
        """Called by Tune in the trial's process."""
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", REPORT_INTERVAL_S)
        quiet_ray()
        assert index is not None
        order: TrialOrder = pickle.loads(told)  # noqa: S301  (made by this search's driver)
        self.run = TrialRun(order, str(self.trial_id), config, index)

    def step(self) -> dict[str, Any]:
        """Wait for the next evaluation."""
        return self.run.next()

    def cleanup(self) -> None:
        """Called by Tune when the trial has ended, or is ended early."""
        self.run.stop()
