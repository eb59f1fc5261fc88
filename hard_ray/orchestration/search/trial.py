"""One trial of a search: a run as `hardray distill` makes it, which reports each evaluation and can be ended early.

The run goes on in a thread, and `TrialRun.next` waits for its next evaluation. A trial that is ended early writes a
checkpoint and takes its workers down itself, so that nothing stays reserved.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pickle
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from hard_ray.config.layers import read_layer
from hard_ray.config.loader import validate
from hard_ray.config.run import RunConfig, without_extras
from hard_ray.config.space import with_values
from hard_ray.data.index import ImageIndex
from hard_ray.data.schedule import train_schedule
from hard_ray.distillation.teacher import TeacherSpec
from hard_ray.errors import HardrayError, StoppedError
from hard_ray.files import make_folder, read_json, write_json, write_text
from hard_ray.orchestration.cluster.connection import REPORT_INTERVAL_S, quiet_ray
from hard_ray.orchestration.cluster.demand import DataShare
from hard_ray.orchestration.pool.client import PoolAddress
from hard_ray.orchestration.run.driver import Driver
from hard_ray.orchestration.run.plan import RunPlan, WorkerPlan, write_configs
from hard_ray.orchestration.run.reporter import Reporter
from hard_ray.orchestration.search.at_url import SearchStop
from hard_ray.runs.log import LogTail
from hard_ray.runs.place import Place, own_place
from hard_ray.runs.search_folder import SearchFolder, TrialFolder
from hard_ray.storage.address import Remote
from hard_ray.storage.lock import UrlLock
from hard_ray.storage.mirror import Mirror

logger = logging.getLogger(__name__)

POLL_S = 0.5
STOP_PATIENCE_S = 90.0
"""Seconds that a trial ended early has to write a checkpoint and take its workers down."""

BEGUN, RESTING, FAILED = "begun", "resting", "failed"

Metrics = dict[str, float]


class TrialFailedError(HardrayError):
    """A trial failed. Tune records it and goes on with the others."""


@dataclass(frozen=True, slots=True)
class TrialOrder:
    """Facts that all trials of a search share."""

    base: RunConfig
    """The base configuration, resolved for the cluster."""
    source: str
    """The name of the space, for messages."""
    folder: Path
    """The search's folder, on the driver's node."""
    teacher: TeacherSpec | None
    pool: PoolAddress | None
    """The pool that all trials share; None: every student worker holds the teacher itself."""
    identity: str | None
    """The teacher's identity, checked by every trial."""
    data: DataShare
    """The resources for Ray Data of one trial."""
    url: str | None = None
    """The search's URL: every node has a working copy of its own. None: all nodes see the folder."""

    def config(self, values: Mapping[str, Any]) -> RunConfig:
        """The base configuration with a trial's settings; raises ConfigError if they cannot be used together."""
        return with_values(self.base, values, self.source)


Runner = Callable[[RunConfig, TrialFolder, Reporter, Place], None]


class TrialRun:
    """A trial's run in a thread of this process."""

    def __init__(
        self, order: TrialOrder, name: str, values: Mapping[str, Any], index: ImageIndex, runner: Runner
    ) -> None:
        """Prepare a trial, which starts with the first call of `next`; `runner` carries out its run."""
        self.order = order
        self.index = index
        self.search = SearchFolder(order.folder) if order.url is None else SearchFolder.at(order.url)
        self._search_stop = SearchStop(self.search)
        self.folder = self.search.trial(name)
        self.values = {key: plain(value) for key, value in values.items()}
        self._runner = runner
        self.last: Metrics = {}
        self._events: queue.Queue[Metrics | BaseException | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="trial", daemon=True)
        self._began = False
        self._is_last: Callable[[Mapping[str, Any]], bool] = lambda _: False

    def next(self) -> dict[str, Any]:
        """Wait for the next evaluation; the last comes with `done` after the run has ended, and a failure is raised."""
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
        """End the run with a checkpoint; return whether it ended in time."""
        end = time.monotonic() + patience_s
        while self._thread.is_alive() and time.monotonic() < end:
            with contextlib.suppress(FileNotFoundError):  # its folder is not made yet
                self.folder.stop_request.touch()
            self._thread.join(POLL_S)
        if self.folder.url is not None:  # the trial may go on from another node, and its workers be here
            self.folder.stop_request.unlink(missing_ok=True)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            with _held(self.folder) as place:
                self._run(place)
        except BaseException as error:  # handed to the thread that waits
            self._events.put(error)
        else:
            self._events.put(None)

    def _run(self, place: Place) -> None:
        make_folder(self.folder.path)
        # written, not removed: what a file said before would come back from a URL
        write_json(self.folder.note, {"state": BEGUN})
        write_text(self.folder.group, "")
        config = self._config()
        per_epoch = train_schedule(
            self.index, config.data, batch_size=config.optim.batch_size, seed=config.seed
        ).batches_per_epoch
        total = config.optim.total_updates(per_epoch)
        self._is_last = lambda point: point["student_step"] >= total
        reporter = Evaluations(self._search_stop, self.folder, per_epoch, self._events.put)
        self._runner(config, self.folder, reporter, place)

    def _config(self) -> RunConfig:
        """The configuration that the trial began with, or begins with."""
        if self.folder.config.exists():
            return validate([read_layer(self.folder.config, saved=True)], source=str(self.folder.config))
        return without_extras(self.order.config(self.values))

    def _failure(self, error: BaseException) -> TrialFailedError:
        kind = "" if isinstance(error, HardrayError) else f"{type(error).__name__}: "
        reason = f"{kind}{str(error).strip() or 'no reason given'}"
        self._note(FAILED, reason=reason)
        return TrialFailedError(reason)

    def _rest(self) -> None:
        """The whole search is asked to stop: note that the checkpoint is written, and wait to be ended."""
        self._note(RESTING)
        while self._search_stop.is_asked():
            time.sleep(POLL_S)

    def _note(self, state: str, **more: str) -> None:
        """Note the state for the search's driver."""
        make_folder(self.folder.path)  # there is none yet where the URL could not be locked
        write_json(self.folder.note, {"state": state, **more})
        if self.folder.url is None:
            return
        remote = Remote.parse(self.folder.url)
        mirror = Mirror.of(remote)
        mirror.check = UrlLock(remote).check  # the run has ended and gave up its lock; the search's keeps others away
        try:
            mirror.push()
        except HardrayError as error:
            logger.warning("the search is not told that the trial is %s: %s", state, error)


@contextlib.contextmanager
def _held(folder: TrialFolder) -> Iterator[Place]:
    """The place of a trial's run; of a search at a URL it is locked, and what is there is brought here."""
    if folder.url is None:
        yield Place(folder.path)
        return
    with own_place(Remote.parse(folder.url)) as place:
        yield place


class Evaluations:
    """Reads a trial's evaluations from its log, and passes a stop of the whole search on to the trial."""

    def __init__(
        self, search_stop: SearchStop, folder: TrialFolder, per_epoch: int, report: Callable[[Metrics], None]
    ) -> None:
        """Begin with what an earlier start logged: a scheduler forgets it at a resume."""
        self.search_stop = search_stop
        self.folder = folder
        self.per_epoch = per_epoch
        self.report = report
        self._last_step = -1
        self._tail = LogTail()

    def say(self, text: str) -> None:
        """Ignore the run's messages: the search's driver reports on its trials."""

    def watch(self, plans: tuple[RunPlan, ...]) -> None:
        """Report the new evaluations."""
        if self.search_stop.is_asked():
            self.folder.stop_request.touch()
        for point in self._tail.read(self.folder.metrics):
            if point["kind"] == "val" and point["step"] > self._last_step:
                self._last_step = point["step"]
                self.report(evaluation(point, self.per_epoch))
        self._tail.advance()

    def close(self) -> None:
        """Report the last evaluations."""
        self.watch(())


def evaluation(point: Mapping[str, Any], per_epoch: int) -> Metrics:
    """A logged evaluation as Tune receives it: the metrics of the validation split, and when it was."""
    measured = {key: float(value) for key, value in point.items() if key.startswith("val/")}
    return {
        **measured,
        "step": point["step"],
        "epoch": point["step"] // per_epoch,
        "student_step": point["student_step"],
    }


def plain(value: Any) -> Any:
    """A NumPy number as a Python number."""
    return value.item() if hasattr(value, "item") else value


def state_of(folder: TrialFolder) -> tuple[str | None, str | None]:
    """The state and the reason that a trial's process noted last."""
    note = read_json(folder.note, {})
    return note.get("state"), note.get("reason")


def distill_trial(
    order: TrialOrder, index: ImageIndex, config: RunConfig, folder: TrialFolder, reporter: Reporter, place: Place
) -> None:
    """Run a trial as `hardray distill` would, with the search's teacher."""
    driver = Driver(config, index, folder, reporter, place=place)
    driver.check()
    plan = WorkerPlan(
        driver.plans(train_teacher=False),
        order.teacher,
        order.pool,
        order.data,
        folder.stop_request,
        teacher_identity=order.identity,
        group_note=folder.group,
        url=place.url,
        owner=place.owner,
    )
    write_configs(folder, index, plan.runs)
    place.send()
    with folder.locked():
        driver.carry_out(plan)


class TrialActor(tune.Trainable):
    """A trial as Tune runs it: one step is one evaluation."""

    def setup(self, config: dict[str, Any], order: bytes = b"", index: ImageIndex | None = None) -> None:
        """Prepare the trial; Tune calls this in the trial's process."""
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", REPORT_INTERVAL_S)
        quiet_ray()
        assert index is not None
        shared: TrialOrder = pickle.loads(order)  # noqa: S301  (made by this search's driver)
        runner = functools.partial(distill_trial, shared, index)
        self.run = TrialRun(shared, str(self.trial_id), config, index, runner)

    def step(self) -> dict[str, Any]:
        """Wait for the next evaluation."""
        return self.run.next()

    def cleanup(self) -> None:
        """End the run; Tune calls this when the trial has ended or is ended early."""
        self.run.stop()
