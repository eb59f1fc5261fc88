"""The loop of one run on one rank: update, log, evaluate, save.

All parts are passed in, so the loop runs in a Ray Train worker and in a plain process alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import torch
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3

from hard_ray.config.controller import Phase
from hard_ray.data.batch import Batch
from hard_ray.distillation.bad_images import SharedBadImages
from hard_ray.distillation.checkpoints import CheckpointStore, Counters, Weights
from hard_ray.distillation.controller import Controller, Switch
from hard_ray.distillation.guard import Guard, diverged
from hard_ray.distillation.meter import Meter, Signals, SignalSum
from hard_ray.distillation.optimisers import largest_rate
from hard_ray.distillation.phases import Prepared
from hard_ray.distillation.prefetch import Prefetch
from hard_ray.distillation.step import Updater
from hard_ray.errors import RunFolderError
from hard_ray.maths.metrics import SuiteResult
from hard_ray.ranks import Ranks
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.log import MetricsLog

STOP_POLL_S = 0.5


class Status(StrEnum):
    """How a training ended."""

    FINISHED = "finished"
    STOPPED = "stopped"


class Observer(Protocol):
    """Shows and keeps a student now and then, on the first rank."""

    def picture(self, step: int) -> None:
        """Draw the gallery."""

    def keep_best(self) -> None:
        """Keep the present weights as the best so far."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Length of the run and intervals between log points, evaluations and checkpoints, in updates."""

    total: int
    """Student updates of the whole run."""
    per_epoch: int
    log_every: int
    validate_every: int
    checkpoint_every: int


@dataclass(slots=True)
class StopRequest:
    """A file whose presence asks for a checkpoint and the end."""

    path: Path
    polled: float = 0.0

    def is_there(self) -> bool:
        """Look for the file, at most once in STOP_POLL_S seconds."""
        if time.monotonic() - self.polled < STOP_POLL_S:
            return False
        self.polled = time.monotonic()
        return self.path.exists()


@dataclass(slots=True)
class Run:
    """The parts of one run on one rank."""

    folder: RunFolder
    stop: StopRequest
    rhythm: Rhythm
    updater: Updater
    controller: Controller
    counters: Counters
    weights: Weights
    checkpoints: CheckpointStore
    batches: Callable[[int], Generator[Batch]]
    """Endless batches of the schedule, from a given number on."""
    evaluate: Callable[[], dict[str, SuiteResult]]
    """Evaluates the student on the validation split, by suite; every rank takes part."""
    ranks: Ranks
    observer: Observer
    batch_size: int
    """Images per update, over all ranks."""
    bad_images: SharedBadImages
    ahead: int = 1
    """Batches that the teacher is asked about before they are used."""
    scheduler: Scheduler | None = None
    ema: ModelEmaV3 | None = None
    report: Callable[[dict[str, Any]], None] = lambda _: None
    """Callback for the results of each evaluation; every rank calls it."""
    reads_late: bool | None = None
    """Whether the signals of an update are read while the next one is computed; None: on a GPU.

    A CPU has computed an update when it returns; a GPU has only been given it, and would be idle from its end until the
    next one is prepared. Decisions are the same.
    """
    _meter: Meter = field(init=False)
    _log: MetricsLog = field(init=False)
    _signals: SignalSum = field(init=False)
    _guard: Guard = field(init=False)
    _evaluated_at: int = field(init=False, default=-1)

    def __post_init__(self) -> None:
        device = self.updater.precision.device
        if self.reads_late is None:
            self.reads_late = device.type == "cuda"
        self.bad_images.known.names = set(self.counters.bad_images)
        self._meter = Meter(self.counters.meter)
        self._log = MetricsLog(self.folder.metrics)
        self._signals = SignalSum(self.ranks, device, self.counters.pending)
        self._guard = Guard(self.folder.diverged, self.weights, self.ranks, device)
        self.updater.clock.seconds = dict(self.counters.seconds)
        if self.ranks.is_first:
            self._log.cut(self.counters.step)
        if self.scheduler is not None:
            self.scheduler.step_update(self.counters.student_steps)

    def train(self) -> Status:
        """Train to the end, or until a stop is asked for.

        Raises:
            AgreedError: more images are unreadable than allowed, or a checkpoint cannot be written.
            DivergedError: the loss is not finite; the batch was written, and no checkpoint since.
        """
        if self.counters.step == 0:
            self._picture()
        if self.counters.student_steps >= self.rhythm.total:
            return Status.FINISHED
        with closing(self.batches(self.counters.step)) as batches:
            learned = self.controller.learned
            status = self._loop(Prefetch(batches, self.updater, self.bad_images.note, learned, self.ahead))
        if status is Status.FINISHED:
            self._evaluate()
        self.bad_images.merge()
        self._checkpoint()
        return status

    def _loop(self, prefetch: Prefetch) -> Status:
        phase = self.controller.phase
        left = self.rhythm.total - self.counters.student_steps
        prepared = prefetch.next(student_next=phase is Phase.STUDENT, left=left)
        while True:
            began, clock = time.perf_counter(), dict(self.updater.clock.seconds)
            # 1. Signals of update n-1 decide the phase of update n+1; that of update n is decided already.
            if not self.reads_late and self._decide(self._signals.read(), step=self.counters.step):
                return Status.STOPPED
            # 2. The teacher is asked about batch n+1, so that it answers during update n.
            left = self.rhythm.total - self.counters.student_steps - (phase is Phase.STUDENT)
            last = left == 0
            following = prepared
            if not last:
                both_student = phase is self.controller.phase is Phase.STUDENT
                following = prefetch.next(student_next=both_student and not self.reads_late, left=left)
            # 3. Update n, and the sum of its signals over ranks.
            self._update(prepared, phase)
            stopped = self.reads_late and self._read_late(prefetch, phase, None if last else following)
            self._guard.last = prepared
            self._time(began, clock)
            self._log_evaluate_save(last)
            if last or stopped:
                return Status.FINISHED if last else Status.STOPPED
            prepared, phase = following, self.controller.phase

    def _read_late(self, prefetch: Prefetch, phase: Phase, following: Prepared | None) -> bool:
        """Do 1., and what follows from it in 2., after update n was begun; True if training is to stop."""
        stopped = self._decide(self._signals.read_before(), step=self.counters.step - 1)
        if following is not None and phase is self.controller.phase is Phase.STUDENT:
            prefetch.second_view(following)
        return stopped

    def _update(self, prepared: Prepared, phase: Phase) -> None:
        counters = self.counters
        epoch = counters.student_steps / self.rhythm.per_epoch
        began = time.perf_counter()
        metrics = self.updater.update(prepared, phase, step=counters.step, epoch=epoch)
        counters.step += 1
        if phase is Phase.AUGMENTOR:
            self.updater.clock.add("augmentor_phases", began)
            counters.augmentor_steps += 1
        else:
            counters.student_steps += 1
            if self.ema is not None:
                self.ema.update(self.updater.learner.network, step=counters.student_steps)
            if self.scheduler is not None:
                self.scheduler.step_update(counters.student_steps)
        self._meter.add({**metrics, "phase": torch.tensor(float(phase is Phase.AUGMENTOR))})
        stop = self.ranks.is_first and self.stop.is_there()
        self._signals.send(metrics, stop=stop, new_bad=len(self.bad_images.new), diverged=diverged(metrics))

    def _time(self, began: float, clock: dict[str, float]) -> None:
        self.updater.clock.add("total", began)
        seconds = self.updater.clock.seconds
        names = {"total": "time/step", "data_wait": "time/data_wait", "teacher_wait": "time/teacher_wait"}
        spent = {key: seconds.get(name, 0.0) - clock.get(name, 0.0) for name, key in names.items()}
        self._meter.add({key: torch.tensor(value) for key, value in spent.items()})

    def _decide(self, signals: Signals | None, *, step: int) -> bool:
        """Act on the signals of update number `step` and decide the next phase; True if training is to stop."""
        self._refuse_divergence(signals, step=step)
        if signals is not None and signals.new_bad:
            self.bad_images.merge()
        stop = signals is not None and signals.stop
        if stop and not self.reads_late:
            return True
        switch = self.controller.decide(signals.phase if signals else None)
        if switch is not None:
            self._log_switch(switch)
        return stop

    def _refuse_divergence(self, signals: Signals | None, *, step: int) -> None:
        if signals is not None and signals.diverged:
            self._guard.refuse_loss(step=step)

    def _log_evaluate_save(self, last: bool) -> None:
        step = self.counters.step
        if step % self.rhythm.log_every == 0 or last:
            self._log_point()
        if not last and step % self.rhythm.validate_every == 0:
            self._evaluate()
        if not last and step % self.rhythm.checkpoint_every == 0:
            self._checkpoint()

    def _log_point(self) -> None:
        sums = self._meter.read(self.ranks, self.updater.precision.device)
        self._meter.clear()
        if not self.ranks.is_first:
            return
        means = {name: total / count for name, (total, count) in sums.items() if count}
        images_per_s = self.batch_size / means["time/step"] if means.get("time/step") else 0.0
        learning_rate = largest_rate(self.updater.learner.optimizer)
        scale = self.updater.learner.loss_scale
        skipped = {} if scale is None else {"amp/skipped_steps": float(scale.skipped)}
        self._write("train", {**means, "lr": learning_rate, **skipped, "throughput/images_per_s": images_per_s})

    def _log_switch(self, switch: Switch) -> None:
        """Log a switch as a point of the update that begins now: a resume from before it decides again."""
        if self.ranks.is_first:
            detail = {"to": switch.to, "reason": switch.reason, "from_update": switch.step + 1}
            numbers = {"switch/phase": int(switch.to is Phase.AUGMENTOR), "switch/disagreement": switch.disagreement}
            self._write("switch", {**detail, **numbers}, step=switch.step)

    def _write(self, kind: str, values: dict[str, Any], *, step: int | None = None) -> None:
        counters = self.counters
        place = {
            "step": counters.step if step is None else step,
            "student_step": counters.student_steps,
            "epoch": round(counters.step / self.rhythm.per_epoch, 4),
            "time": time.time(),
        }
        self._log.append({"kind": kind, **place, **values})

    def _evaluate(self) -> None:
        if self._evaluated_at == self.counters.step:
            return
        self._evaluated_at = self.counters.step
        results = self.evaluate()
        values = _scores(results, clean="val", others="val")
        score = next(iter(results.values())).metrics.score
        is_best = self.counters.best_score is None or score > self.counters.best_score
        if is_best:
            self.counters.best_score = score
        if self.ranks.is_first:
            self._write("val", values)
            if is_best:
                self.observer.keep_best()
        self._picture()
        self.report({**values, "step": self.counters.step, "epoch": self.counters.step // self.rhythm.per_epoch})

    def log_final(self, results: dict[str, SuiteResult], *, split: str) -> None:
        """Log the results of the finished student: `test/top1` and `ood/<suite>/top1`.

        The point's step is beyond the last update, so that a resume that evaluates again removes it first.
        """
        self._write("final", _scores(results, clean=split, others="ood"), step=self.counters.step + 1)

    def _picture(self) -> None:
        if self.ranks.is_first:
            self.observer.picture(self.counters.step)

    def _checkpoint(self) -> None:
        """Write what a resume needs; raises AgreedError if it cannot, DivergedError at non-finite loss or weights."""
        counters = self.counters
        signals = self._signals.read()
        self._refuse_divergence(signals, step=counters.step)
        self._guard.check_weights(step=counters.step)
        counters.pending = signals.phase if signals else None
        counters.bad_images = sorted(self.bad_images.known.names)
        counters.controller = self.controller.state
        counters.meter = self._meter.read(self.ranks, self.updater.precision.device)
        counters.seconds = dict(self.updater.clock.seconds)
        error: RunFolderError | None = None
        if self.ranks.is_first:
            try:
                self.checkpoints.save(self.weights, counters)
            except RunFolderError as problem:
                error = problem
        self.ranks.agree(error)


def _scores(results: dict[str, SuiteResult], *, clean: str, others: str) -> dict[str, float]:
    return {
        f"{clean if suite == 'clean' else f'{others}/{suite}'}/{key}": value
        for suite, result in results.items()
        for key, value in result.to_json().items()
        if key in ("top1", "agreement", "ece", "cosine", "loss")
    }
