"""The way of a batch through Ray Data: positions -> rows -> pictures -> views -> uint8 blocks -> batches."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray.data
from ray.data import DataContext, ExecutionResources
from ray.exceptions import RayTaskError

from hard_ray.config.data import DataConfig
from hard_ray.data.batch import Batch
from hard_ray.data.generated_set import GeneratedImages
from hard_ray.data.index import ImageIndex, Rows
from hard_ray.data.pictures import Columns, EvalPictures, Pictures, TrainPictures, to_batch
from hard_ray.data.schedule import JointSchedule, Schedule
from hard_ray.errors import HardrayError
from hard_ray.orchestration.cluster.demand import DataShare
from hard_ray.orchestration.cluster.processes import give_way
from hard_ray.orchestration.shipped import Shipped

_UPDATES_PER_EXECUTION = 1000
_LARGEST_BLOCK_ROWS = 1024
"""Limit of a block, which is made before its first image is used: small blocks start sooner at no extra cost."""
_BLOCKS_AHEAD = 8
"""Limit of blocks in advance: images made too early take memory, and CPUs from the networks."""


@dataclass(slots=True)
class Pipeline:
    """One rank's images, streamed by Ray Data in a fixed order."""

    index: ImageIndex
    config: DataConfig
    schedule: Schedule | JointSchedule
    share: DataShare
    block_bytes: float
    generated: GeneratedImages | None = None
    """A generated set beside the training images."""
    _shipped: dict[str, Shipped[Pictures]] = field(default_factory=dict)

    def train_batches(self, first: int) -> Generator[Batch]:
        """Yield the batches of the schedule from number `first` on, without end.

        One Ray Data execution covers whole epochs, at least a thousand updates, so that the cost of a start does not
        matter; the next execution begins where it ends.
        """
        per_epoch = self.schedule.batches_per_epoch
        length = per_epoch * max(1, -(-_UPDATES_PER_EXECUTION // per_epoch))
        pictures = TrainPictures(self.index.reader, self.index.labels, self.config, self.schedule, self.generated)
        while True:
            last = (first // length + 1) * length
            size = self.schedule.local_batch
            yield from self._stream("updates", pictures, first * size, last * size, size)
            first = last

    def eval_batches(self, split: str, batch_size: int) -> Generator[Batch]:
        """Yield this rank's part of a split once, in order; unreadable images are dropped and named."""
        rows = np.array_split(self.index.rows(split), self.schedule.world_size)[self.schedule.rank]
        yield from self._evaluated(split, split, rows, batch_size)

    def batches_to_look_at(self, split: str, count: int) -> Generator[Batch]:
        """Yield a whole split in batches of `count`, the first of which is spread over it, so of several classes."""
        rows = self.index.rows_to_look_at(split, count)
        yield from self._evaluated(f"{split} to look at", split, rows, count)

    def _evaluated(self, name: str, split: str, rows: Rows, batch_size: int) -> Generator[Batch]:
        generated = self.generated if split == "train" else None
        pictures = EvalPictures(self.index.reader, self.index.labels, self.config, rows, generated)
        yield from self._stream(name, pictures, 0, len(rows), batch_size)

    def _stream(self, name: str, pictures: Pictures, start: int, stop: int, batch_size: int) -> Generator[Batch]:
        """Stream pictures from `start` to `stop`; `name` identifies them in the object store."""
        if stop <= start:
            return
        if name not in self._shipped:  # once per run: an index can be large
            self._shipped[name] = Shipped.put(pictures)
        configure_ray_data(DataShare(self.share.cpus, min(self.share.object_store_bytes, self._bytes_ahead())))
        blocks = max(1, -(-(stop - start) // self._rows_per_block()))
        stream = ray.data.range(stop - start, override_num_blocks=blocks).map_batches(
            _make_columns(start), batch_size=None, fn_args=(self._shipped[name],), zero_copy_batch=True
        )
        try:
            for columns in stream.iter_batches(batch_size=batch_size, prefetch_batches=2, drop_last=False):
                yield to_batch(columns, keep_bad=isinstance(pictures, TrainPictures))
        except RayTaskError as failure:
            if isinstance(failure.cause, HardrayError):  # its text is for the user, Ray's is a traceback
                raise failure.cause from None
            raise

    def _rows_per_block(self) -> int:
        return max(1, min(_LARGEST_BLOCK_ROWS, int(self.block_bytes // self._row_bytes())))

    def _row_bytes(self) -> int:
        augment = self.config.augment
        views = max(1, 0 if augment is None else augment.splits) + (self.generated is not None)
        return self.config.in_chans * self.config.img_size**2 * views

    def _bytes_ahead(self) -> float:
        """Bytes of the blocks that are being made or wait for their use."""
        blocks = _BLOCKS_AHEAD + 2 * math.ceil(self.share.cpus)
        return float(blocks * self._rows_per_block() * self._row_bytes())


def _make_columns(start: int) -> Callable[..., Columns]:
    def make(block: Columns, pictures: Shipped[Pictures]) -> Columns:
        give_way()
        return pictures.get()(block["id"] + start)

    return make


class Breath:
    """Sleeps briefly when Ray Data's scheduler spins without work: with a full output it would occupy a core.

    An execution callback, of which Ray Data makes one for each execution.
    """

    SHORTEST, LONGEST = 0.01, 0.08
    """Seconds; each pause is twice the one before it, as long as there is no work."""

    IDLE = 0.002
    """Seconds; a shorter turn of the scheduler did no work."""

    def __init__(self) -> None:
        self._turned, self._pause = 0.0, self.SHORTEST

    def on_execution_step(self, executor: object) -> None:
        """Sleep if the last turn did no work; called once a turn."""
        if time.monotonic() - self._turned < self.IDLE:
            time.sleep(self._pause)
            self._pause = min(2 * self._pause, self.LONGEST)
        else:
            self._pause = self.SHORTEST
        self._turned = time.monotonic()

    def before_execution_starts(self, executor: object, error: Exception | None = None) -> None:
        """Do nothing; the interface requires this method and the next two."""

    after_execution_succeeds = after_execution_fails = before_execution_starts


def configure_ray_data(share: DataShare) -> None:
    """Set Ray Data to keep the order, print nothing, and stay within this rank's share of the cluster."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # not one of Ray Data's around it
    options = context.execution_options
    options.preserve_order = True
    options.verbose_progress = False
    callbacks: list[Any] = context.custom_execution_callback_classes
    if Breath not in callbacks:
        callbacks.append(Breath)
    options.resource_limits = ExecutionResources(cpu=share.cpus, object_store_memory=share.object_store_bytes)
    for name in ("ray.data", "ray.data._internal"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it warns about missing progress bars


STREAM_THREADS = ("iter_threaded", "Prefetcher", "StreamingExecutor")
"""Beginnings of the names of Ray Data's threads."""
STREAM_PATIENCE_S = 20.0


def await_streams() -> None:
    """Wait until Ray Data's threads have ended: one that calls Ray after its shutdown makes Ray end the process.

    A driver that reads images itself calls this before it leaves `connected`.
    """
    end = time.monotonic() + STREAM_PATIENCE_S
    for thread in threading.enumerate():
        if thread.name.startswith(STREAM_THREADS):
            _end(thread)
            thread.join(max(0.0, end - time.monotonic()))


def _end(thread: threading.Thread) -> None:
    """End a prefetcher's thread, which Ray Data leaves waiting where it prefetches nothing."""
    prefetcher = getattr(getattr(thread, "_target", None), "__self__", None)
    condition = getattr(prefetcher, "_condition", None)
    if prefetcher is not None and isinstance(condition, threading.Condition):
        prefetcher.stop()
        with condition:
            condition.notify_all()
