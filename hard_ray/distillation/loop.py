"""The loop of one run on one rank: update, watch, evaluate, keep.

Everything it needs is handed in, so it runs in a Ray Train worker and in a plain process alike.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from hard_ray.config.controller import Phase
from hard_ray.data.batch import Batch
from hard_ray.distillation.checkpoints import CheckpointStore, Progress, Weights
from hard_ray.distillation.controller import Controller, Measurement, Switch
from hard_ray.distillation.meter import Meter, Signals
from hard_ray.distillation.step import Metrics, Prepared, Updater
from hard_ray.errors import DivergedError, RunFolderError
from hard_ray.maths.metrics import SuiteResult
from hard_ray.ranks import Ranks
from hard_ray.runs.bad_images import BadImages
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.log import MetricsLog

STOP_POLL_S = 0.5
LOSSES = ("train/loss", "augmentor/loss")
"""Metrics that have to be numbers."""


class Status(StrEnum):
    """How training ended."""

    FINISHED = "finished"
    STOPPED = "stopped"


class Observer(Protocol):
    """What the first rank makes of a student now and then."""

    def picture(self, step: int) -> None:
        """Draw the gallery."""
        ...

    def keep_best(self) -> None:
        """Keep the present weights as the best so far."""
        ...


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How long and how often, in updates."""

    total: int
    """Student updates of the whole run."""
    per_epoch: int
    log_every: int
    validate_every: int
    checkpoint_every: int


@dataclass(slots=True)
class Run:
    """The parts of one run on one rank."""

    folder: RunFolder
    stop: Path
    """A file whose presence asks for a checkpoint and the end."""
    rhythm: Rhythm
    updater: Updater
    controller: Controller
    progress: Progress
    weights: Weights
    checkpoints: CheckpointStore
    batches: Callable[[int], Generator[Batch]]
    """Batches of the schedule from a number on, without end."""
    evaluate: Callable[[], dict[str, SuiteResult]]
    """The student on the validation split, by suite; every rank takes part."""
    ranks: Ranks
    observer: Observer
    batch_size: int
    """Images per update, over all ranks."""
    bad_images: BadImages
    """Unreadable images that every rank knows of."""
    ahead: int = 1
    """Batches that the teacher is asked about before they are used."""
    scheduler: Scheduler | None = None
    ema: ModelEmaV3 | None = None
    report: Callable[[dict[str, Any]], None] = lambda _: None
    """Hears of each evaluation; every rank calls it."""
    _meter: Meter = field(init=False)
    _log: MetricsLog = field(init=False)
    _reduced: Tensor | None = field(init=False, default=None)
    _new_bad: set[str] = field(init=False, default_factory=set)
    _polled: float = field(init=False, default=0.0)
    _asked: deque[Prepared] = field(init=False, default_factory=deque)
    """Batches that the teacher was asked about, in the order of their use."""
    _last: Prepared | None = field(init=False, default=None)
    _evaluated_at: int = field(init=False, default=-1)

    def __post_init__(self) -> None:
        """Continue where the progress stands."""
        self.bad_images.names = set(self.progress.bad_images)
        self._meter = Meter(self.progress.meter)
        self._log = MetricsLog(self.folder.metrics)
        self.updater.clock.seconds = dict(self.progress.seconds)
        if self.ranks.is_first:
            self._log.cut(self.progress.step)
        if self.scheduler is not None:
            self.scheduler.step_update(self.progress.student_steps)

    @property
    def student(self) -> nn.Module:
        """What is evaluated and exported: the moving average where there is one."""
        return self.ema.module if self.ema is not None else self.updater.learner.network

    # --------------------------------------------------------------------- loop

    def train(self) -> Status:
        """Train to the end, or until a stop is asked for.

        Raises:
            AgreedError: more images are unreadable than allowed, or a checkpoint cannot be written.
            DivergedError: the loss is no number; the batch was written, and no checkpoint since.
        """
        if self.progress.step == 0:
            self._picture()
        if self.progress.student_steps >= self.rhythm.total:
            return Status.FINISHED
        with closing(self.batches(self.progress.step)) as batches:
            status = self._loop(batches)
        if status is Status.FINISHED:
            self._evaluate()
        self.merge_bad()
        self._checkpoint()
        return status

    def _loop(self, batches: Iterator[Batch]) -> Status:
        phase = self.controller.phase
        left = self.rhythm.total - self.progress.student_steps
        prepared = self._prepare(batches, phase, augmentor_rests=True, left=left)
        while True:
            began, clock = time.perf_counter(), dict(self.updater.clock.seconds)
            if self._hear(self._read_signals()):
                return Status.STOPPED
            left = self.rhythm.total - self.progress.student_steps - (phase is Phase.STUDENT)
            last = left == 0
            following = prepared
            if not last:
                rests = phase is Phase.STUDENT
                following = self._prepare(batches, self.controller.phase, augmentor_rests=rests, left=left)
            self._update(prepared, phase)
            self._time(began, clock)
            self._keep_and_watch(last)
            if last:
                return Status.FINISHED
            prepared, phase = following, self.controller.phase

    def _prepare(self, batches: Iterator[Batch], phase: Phase, *, augmentor_rests: bool, left: int) -> Prepared:
        """The next batch, while the teacher is asked about those after it.

        Clean images are the same whatever happens until they are used. So is a second view that nothing learns;
        one that is learned waits until the augmentor rests. `left` student updates are sure to come.
        """
        while len(self._asked) < max(1, min(self.ahead, left)):
            self._asked.append(self._ask(batches))
        prepared = self._asked.popleft()
        if self.controller.learned and phase is Phase.STUDENT and augmentor_rests:
            self.updater.second_view(prepared)
        return prepared

    def _ask(self, batches: Iterator[Batch]) -> Prepared:
        start = time.perf_counter()
        batch = next(batches)
        self.updater.clock.add("data_wait", start)
        self.note_bad(batch.bad)
        return self.updater.prepare(batch, second_view=not self.controller.learned)

    def _update(self, prepared: Prepared, phase: Phase) -> None:
        progress = self.progress
        epoch = progress.student_steps / self.rhythm.per_epoch
        began = time.perf_counter()
        metrics = self.updater.update(prepared, phase, step=progress.step, epoch=epoch)
        progress.step += 1
        self._last = prepared
        if phase is Phase.AUGMENTOR:
            self.updater.clock.add("augmentor_phases", began)
            progress.augmentor_steps += 1
        else:
            progress.student_steps += 1
            if self.ema is not None:
                self.ema.update(self.updater.learner.network, step=progress.student_steps)
            if self.scheduler is not None:
                self.scheduler.step_update(progress.student_steps)
        self._meter.add({**metrics, "phase": torch.tensor(float(phase is Phase.AUGMENTOR))})
        self._send_signals(metrics)

    def _time(self, began: float, clock: dict[str, float]) -> None:
        self.updater.clock.add("total", began)
        seconds = self.updater.clock.seconds
        names = {"total": "time/step", "data_wait": "time/data_wait", "teacher_wait": "time/teacher_wait"}
        spent = {key: seconds.get(name, 0.0) - clock.get(name, 0.0) for name, key in names.items()}
        self._meter.add({key: torch.tensor(value) for key, value in spent.items()})

    # ------------------------------------------------------------------ signals

    def _send_signals(self, metrics: Metrics) -> None:
        """Add up over ranks what the next decision needs; it is read when the next update begins."""
        absent = torch.tensor(float("nan"))
        device = self.updater.precision.device
        values = [metrics.get(name, absent) for name in ("train/disagreement", "train/kd_loss")]
        losses = [value for name, value in metrics.items() if name in LOSSES]
        diverged = ~torch.stack(losses).isfinite().all() if losses else torch.tensor(0.0)
        flags = [torch.tensor(float(self._stop_requested())), torch.tensor(float(len(self._new_bad))), diverged]
        self._reduced = self.ranks.sum(torch.stack([value.to(device).float() for value in (*values, *flags)]))

    def _read_signals(self) -> Signals | None:
        """The last update's numbers; before the first update there are none."""
        if self._reduced is None:
            pending = self.progress.pending
            return Signals(pending, stop=False, new_bad=False, diverged=False) if pending else None
        disagreement, clean, stop, bad, diverged = self._reduced.tolist()
        size = self.ranks.size
        measurement = Measurement(_known(disagreement / size), _known(clean / size))
        return Signals(measurement, stop=stop > 0, new_bad=bad > 0, diverged=diverged > 0)

    def _hear(self, signals: Signals | None) -> bool:
        """Merge what is new and decide the next phase; whether to stop instead.

        Raises:
            DivergedError: the last update's loss is no number.
        """
        self._refuse_divergence(signals)
        if signals is not None and signals.new_bad:
            self.merge_bad()
        if signals is not None and signals.stop:
            return True
        switch = self.controller.decide(signals.measurement if signals else None)
        if switch is not None:
            self._log_switch(switch)
        return False

    def _refuse_divergence(self, signals: Signals | None) -> None:
        """After the update, and before a checkpoint.

        Raises:
            DivergedError: the last update's loss is no number.
        """
        if signals is not None and signals.diverged:
            self._give_up("the loss of update {} is")

    def _refuse_broken_weights(self) -> None:
        """No checkpoint holds weights that are no numbers: a finite loss can have a gradient that is not.

        Raises:
            DivergedError: there are some, on any rank.
        """
        broken = torch.tensor(float(not self.weights.are_numbers()), device=self.updater.precision.device)
        if self.ranks.sum(broken):
            self._give_up("the weights after update {} are")

    def _give_up(self, what: str) -> None:
        """Keep the batch of the last update.

        Raises:
            DivergedError: `what`, in which the update's number is put, is not finite.
        """
        if self._last is None:
            return
        step = self.progress.step
        path = self.folder.diverged / f"step-{step:08d}-rank-{self.ranks.rank}.npz"
        last = self._last
        images = (last.images * 255.0).round().to(torch.uint8).cpu().numpy()
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, images=images, labels=last.labels.cpu().numpy(), sample_ids=last.sample_ids)
        raise DivergedError(
            f"{what.format(step)} not finite; its images are in {path.parent}; lower optim.lr, give "
            "optim.clip_grad, or use runtime.amp_dtype=float32"
        )

    def _stop_requested(self) -> bool:
        if not self.ranks.is_first or time.monotonic() - self._polled < STOP_POLL_S:
            return False
        self._polled = time.monotonic()
        return self.stop.exists()

    # -------------------------------------------------------------------- watch

    def _keep_and_watch(self, last: bool) -> None:
        step = self.progress.step
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
        learning_rate = self.updater.learner.optimizer.param_groups[0]["lr"]
        self._write("train", {**means, "lr": learning_rate, "throughput/images_per_s": images_per_s})

    def _log_switch(self, switch: Switch) -> None:
        """The decision belongs to the update that begins now; a resume before it decides again."""
        if self.ranks.is_first:
            detail = {"to": switch.to, "reason": switch.reason, "from_update": switch.step + 1}
            numbers = {"switch/phase": int(switch.to is Phase.AUGMENTOR), "switch/disagreement": switch.disagreement}
            self._write("switch", {**detail, **numbers}, step=self.progress.step + 1)

    def _write(self, kind: str, values: dict[str, Any], *, step: int | None = None) -> None:
        progress = self.progress
        counters = {
            "step": progress.step if step is None else step,
            "student_step": progress.student_steps,
            "epoch": round(progress.step / self.rhythm.per_epoch, 4),
            "time": time.time(),
        }
        self._log.append({"kind": kind, **counters, **values})

    def _evaluate(self) -> None:
        if self._evaluated_at == self.progress.step:
            return
        self._evaluated_at = self.progress.step
        results = self.evaluate()
        values = _scores(results, clean="val", others="val")
        top1 = next(iter(results.values())).score.top1
        is_best = self.progress.best_top1 is None or top1 > self.progress.best_top1
        if is_best:
            self.progress.best_top1 = top1
        if self.ranks.is_first:
            self._write("val", values)
            if is_best:
                self.observer.keep_best()
        self._picture()
        self.report({**values, "step": self.progress.step, "epoch": self.progress.step // self.rhythm.per_epoch})

    def log_final(self, results: dict[str, SuiteResult], *, split: str) -> None:
        """Log what the finished student was measured on: `test/top1` and `ood/<suite>/top1`.

        The point stands beyond the last update, so that a resume that measures again drops it first.
        """
        self._write("final", _scores(results, clean=split, others="ood"), step=self.progress.step + 1)

    def _picture(self) -> None:
        if self.ranks.is_first:
            self.observer.picture(self.progress.step)

    # --------------------------------------------------------------------- keep

    def _checkpoint(self) -> None:
        """Write all that a resume needs.

        Raises:
            AgreedError: it cannot be written; the checkpoints before are untouched.
            DivergedError: the last update's loss, or a weight after it, is no number.
        """
        progress = self.progress
        signals = self._read_signals()
        self._refuse_divergence(signals)
        self._refuse_broken_weights()
        progress.pending = signals.measurement if signals else None
        progress.controller = self.controller.state
        progress.meter = self._meter.read(self.ranks, self.updater.precision.device)
        progress.seconds = dict(self.updater.clock.seconds)
        error: RunFolderError | None = None
        if self.ranks.is_first:
            try:
                self.checkpoints.save(self.weights, progress)
            except RunFolderError as problem:
                error = problem
        self.ranks.agree(error)

    def note_bad(self, names: Sequence[str]) -> None:
        """Collect unreadable images until the ranks exchange them."""
        self._new_bad |= set(names) - self.bad_images.names

    def merge_bad(self) -> None:
        """Exchange unreadable images between the ranks; every rank calls this.

        Raises:
            AgreedError: there are more than `data.max_bad_fraction` allows.
        """
        found = {name for names in self.ranks.gather(sorted(self._new_bad)) for name in names}
        self._new_bad = set()
        if found <= self.bad_images.names:
            return
        self.bad_images.names |= found
        self.progress.bad_images = sorted(self.bad_images.names)
        if self.ranks.is_first:
            self.bad_images.write(self.folder.bad_images)
        if problem := self.bad_images.problem(listed_in=self.folder.bad_images):
            self.ranks.agree(problem)


def _scores(results: dict[str, SuiteResult], *, clean: str, others: str) -> dict[str, float]:
    """The numbers of each suite, by the names they are logged under."""
    return {
        f"{clean if suite == 'clean' else f'{others}/{suite}'}/{key}": value
        for suite, result in results.items()
        for key, value in result.to_json().items()
        if key in ("top1", "agreement", "ece", "loss")
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
