"""The order of images in every epoch, as a pure function of the seed.

Ray Data streams and transforms, but never decides the order. A batch is a function of (seed, epoch, index), so that
a run that resumes at any batch sees the same images as one that was never interrupted.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hard_ray.config.data import DataConfig, unlabelled_count
from hard_ray.data.index import NO_LABEL, ImageIndex, Rows
from hard_ray.errors import DataError
from hard_ray.maths.noise import permutation


def part_of_batch(batch_size: int, rank: int, world_size: int) -> slice:
    """The images of a global batch that are a rank's; the parts of the ranks differ by one image at most."""
    return slice(*(number * batch_size // world_size for number in (rank, rank + 1)))


@dataclass(frozen=True)
class Schedule:
    """The batches of one rank, over all epochs; B is the batch size, W the number of ranks.

    Map-style sources: global batch k of an epoch is rows kB..(k+1)B of the epoch's permutation, and rank r takes the
    r-th part of it. The images of an update do not depend on W.

    Sharded sources: shards are permuted, then rows are shuffled within a window. Rank r takes the r-th part of the
    whole epoch, so that it opens few shards. The images of an update depend on W.

    Rows that do not fill a last batch are left out of the epoch. If W does not divide B, the ranks' parts of a batch
    differ by one image.
    """

    rows: Rows
    """The training rows, in the source's order."""
    batch_size: int
    """Images per update, over all ranks."""
    seed: int
    rank: int = 0
    world_size: int = 1
    shard: NDArray[np.int32] | None = None
    """For sharded sources, the shard of each of `rows`."""
    window: int = 4096
    """Rows of a sharded source that are shuffled together."""

    def __post_init__(self) -> None:
        if self.batches_per_epoch < 1:
            raise DataError(
                f"optim.batch_size {self.batch_size} is larger than the training split of {len(self.rows)} images; "
                "use a smaller batch"
            )

    @property
    def part(self) -> slice:
        """The images of a global batch that are this rank's."""
        return part_of_batch(self.batch_size, self.rank, self.world_size)

    @property
    def local_batch(self) -> int:
        """Images per update on this rank."""
        return int(self.part.stop - self.part.start)

    @property
    def batches_per_epoch(self) -> int:
        """Updates per epoch."""
        return len(self.rows) // self.batch_size

    def take(self, positions: NDArray[np.int64]) -> tuple[Rows, NDArray[np.int64]]:
        """Rows and epochs at this rank's `positions`, counted in images from the start of the run."""
        # 1. position -> (batch of the run, place in this rank's part of it) -> (epoch, batch of that epoch)
        batch, offset = np.divmod(positions, self.local_batch)
        epoch, index = np.divmod(batch, self.batches_per_epoch)
        # 2. look up each epoch's rows once; neighbouring positions rarely span more than two epochs
        taken = np.empty(len(positions), dtype=np.int64)
        for number in np.unique(epoch):
            chosen = epoch == number
            taken[chosen] = self._epoch_rows(int(number))[index[chosen] * self.local_batch + offset[chosen]]
        return taken, epoch

    def after(self, row: int, step: int) -> int:
        """The row `step` places after a training row in the source's order, for one that cannot be read."""
        return int(self.rows[(np.searchsorted(self.rows, row) + step) % len(self.rows)])

    def _epoch_rows(self, epoch: int) -> Rows:
        """This rank's rows of one epoch, batch after batch."""
        order, batches = self.epoch_order(epoch), self.batches_per_epoch
        if self.shard is not None:  # one contiguous stretch of the epoch: few shards per rank
            return order[self.part.start * batches : self.part.stop * batches]
        # every global batch is divided among the ranks, so that an update does not depend on their number
        return order[: batches * self.batch_size].reshape(batches, self.batch_size)[:, self.part].reshape(-1)

    def epoch_order(self, epoch: int) -> Rows:
        """All training rows in the order of one epoch."""
        if self.shard is None:
            return self.rows[_shuffled(len(self.rows), self.seed, epoch)]
        return self.rows[_shuffled_by_shard(self.shard, self.seed, epoch, self.window)]


@dataclass(frozen=True)
class JointSchedule:
    """The batches of one rank from two schedules: in each batch, stated places are filled by the second one.

    The places of the second are spread evenly over the batch, so that each rank has its share of them. Each of the two
    goes through its own rows by its own epochs, which the draws of an image's views follow; an epoch of the run is as
    many images as both have together.
    """

    labelled: Schedule
    unlabelled: Schedule
    rank: int = 0
    world_size: int = 1

    @property
    def seed(self) -> int:
        """The seed of both orders."""
        return self.labelled.seed

    @property
    def batch_size(self) -> int:
        """Images per update, over all ranks."""
        return self.labelled.batch_size + self.unlabelled.batch_size

    @property
    def part(self) -> slice:
        """The images of a global batch that are this rank's."""
        return part_of_batch(self.batch_size, self.rank, self.world_size)

    @property
    def local_batch(self) -> int:
        """Images per update on this rank."""
        return int(self.part.stop - self.part.start)

    @property
    def batches_per_epoch(self) -> int:
        """Updates per epoch."""
        return (len(self.labelled.rows) + len(self.unlabelled.rows)) // self.batch_size

    def take(self, positions: NDArray[np.int64]) -> tuple[Rows, NDArray[np.int64]]:
        """Rows, and their own epochs, at this rank's `positions`, counted in images from the start of the run."""
        # 1. position -> (batch of the run, place in the global batch) -> number of such places before it
        batch, offset = np.divmod(positions, self.local_batch)
        place = self.part.start + offset
        before = place * self.unlabelled.batch_size // self.batch_size
        is_second = (place + 1) * self.unlabelled.batch_size // self.batch_size > before
        # 2. each schedule counts its own images from the start of the run
        rows, epochs = np.empty(len(positions), dtype=np.int64), np.empty(len(positions), dtype=np.int64)
        for schedule, chosen, number in (
            (self.labelled, ~is_second, place - before),
            (self.unlabelled, is_second, before),
        ):
            own = batch[chosen] * schedule.batch_size + number[chosen]
            rows[chosen], epochs[chosen] = schedule.take(own)
        return rows, epochs

    def after(self, row: int, step: int) -> int:
        """The row `step` places after a training row among those of its kind, for one that cannot be read."""
        is_second = row >= self.unlabelled.rows[0]
        return (self.unlabelled if is_second else self.labelled).after(row, step)


@functools.lru_cache(maxsize=4)
def _shuffled(size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return permutation("order", size, seed=seed, epoch=epoch)


def _shuffled_by_shard(shard: NDArray[np.int32], seed: int, epoch: int, window: int) -> NDArray[np.int64]:
    """Positions in shuffled order: neighbours come from few shards, which are read one after the other."""
    # 1. group positions by shard; rows of a shard are neighbours, so each group begins at the shard's first row
    names, first = np.unique(shard, return_index=True)
    by_shard = np.split(np.arange(len(shard)), np.sort(first)[1:])
    # 2. permute the shards
    order = np.concatenate([by_shard[i] for i in permutation("shards", len(names), seed=seed, epoch=epoch)])
    # 3. shuffle the rows within consecutive windows, each by a permutation of its own
    for number, start in enumerate(range(0, len(order), window)):
        rows = order[start : start + window]
        order[start : start + window] = rows[permutation(f"window {number}", len(rows), seed=seed, epoch=epoch)]
    return order


def train_schedule(
    index: ImageIndex, config: DataConfig, *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
) -> Schedule | JointSchedule:
    """The schedule of a training split; raises DataError if there are too few images for a batch, or a part of it."""
    rows, window = index.rows("train"), getattr(config, "shuffle_window", 4096)
    shard = None if index.shard is None else index.shard[rows]
    count = unlabelled_count(config, batch_size)
    is_second = index.labels[rows] == NO_LABEL
    if config.unlabelled is None:
        if index.has_labels and is_second.any():  # the run has them, and this training of it leaves them out
            rows, shard = rows[~is_second], None if shard is None else shard[~is_second]
        return Schedule(rows, batch_size, seed, rank, world_size, shard, window)
    if not 0 < count < batch_size:
        raise DataError(
            f"data.unlabelled_share {config.unlabelled_share:g} of optim.batch_size {batch_size} is {count} images; "
            "want at least one with a label and one without; use a larger batch, or another share"
        )
    for chosen, size, which in ((~is_second, batch_size - count, "a label"), (is_second, count, "no label")):
        if chosen.sum() < size:
            raise DataError(
                f"optim.batch_size {batch_size} with data.unlabelled_share {config.unlabelled_share:g} takes {size} "
                f"images that have {which}, and train has {chosen.sum()}; lower the batch size, or change the share"
            )
    labelled, unlabelled = (
        Schedule(rows[chosen], size, seed, shard=None if shard is None else shard[chosen], window=window)
        for chosen, size in ((~is_second, batch_size - count), (is_second, count))
    )
    return JointSchedule(labelled, unlabelled, rank, world_size)
