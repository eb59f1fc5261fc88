"""The order of images in every epoch, as a pure function of the seed.

Ray Data streams and transforms, but never decides the order. A batch is a function of (seed, epoch, index), so that
a run that resumes at any batch sees the same images as one that was never interrupted.
"""

from __future__ import annotations

import functools
from dataclasses import InitVar, dataclass, field

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
    shard: InitVar[NDArray[np.int32] | None] = None
    """For sharded sources, the shard of each of `rows`."""
    window: int = 4096
    """Rows of a sharded source that are shuffled together."""

    order: _ShardOrder | None = field(init=False, default=None)
    """The order of a sharded source."""

    def __post_init__(self, shard: NDArray[np.int32] | None) -> None:
        if self.batches_per_epoch < 1:
            raise DataError(
                f"optim.batch_size {self.batch_size} is larger than the training split of {len(self.rows)} images; "
                "use a smaller batch"
            )
        if shard is not None:
            object.__setattr__(self, "order", _ShardOrder.of(shard, self.window))

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
            taken[chosen] = self._rows_of_epoch(int(number), index[chosen], offset[chosen])
        return taken, epoch

    def after(self, row: int, step: int) -> int:
        """The row `step` places after a training row in the source's order, for one that cannot be read."""
        return int(self.rows[(np.searchsorted(self.rows, row) + step) % len(self.rows)])

    def _rows_of_epoch(self, epoch: int, batch: NDArray[np.int64], offset: NDArray[np.int64]) -> Rows:
        """The rows at these batches of an epoch, and places in this rank's part of each."""
        if self.order is not None:  # one contiguous stretch of the epoch: few shards per rank
            first = self.part.start * self.batches_per_epoch
            places = self.order.at(first + batch * self.local_batch + offset, self.seed, epoch)
        else:  # every global batch is divided among the ranks, so that an update does not depend on their number
            shuffled = _shuffled(len(self.rows), self.seed, epoch)
            places = shuffled[batch * self.batch_size + self.part.start + offset]
        rows: Rows = self.rows[places]
        return rows

    def epoch_order(self, epoch: int) -> Rows:
        """All training rows in the order of one epoch."""
        if self.order is None:
            return self.rows[_shuffled(len(self.rows), self.seed, epoch)]
        return self.rows[self.order.at(np.arange(len(self.rows)), self.seed, epoch)]


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


@dataclass(frozen=True)
class _ShardOrder:
    """An order in which neighbours come from few shards, which are read one after the other.

    The shards are permuted, and their rows are shuffled within consecutive windows, each by a permutation of its own. A
    place of the order is computed when it is asked for: an epoch takes memory for its shards, not for its rows.
    """

    first: NDArray[np.int64]
    """The first place of each shard in the source's order; rows of a shard are neighbours."""
    size: NDArray[np.int64]
    """The rows of each shard."""
    window: int

    @classmethod
    def of(cls, shard: NDArray[np.int32], window: int) -> _ShardOrder:
        """Of the shard of each row."""
        first = np.concatenate([[0], np.flatnonzero(shard[1:] != shard[:-1]) + 1])
        return cls(first, np.diff(first, append=len(shard)), window)

    def at(self, positions: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
        """The places in the source's order that stand at these positions of an epoch."""
        shards = permutation("shards", len(self.first), seed=seed, epoch=epoch)
        ends = np.cumsum(self.size[shards])
        # 1. the window of each position, and the position that its permutation puts there
        unshuffled, rows = positions.copy(), int(ends[-1])
        windows = positions // self.window
        for number in np.unique(windows):
            chosen, start = windows == number, number * self.window
            within = _window(int(number), min(self.window, rows - int(start)), seed, epoch)
            unshuffled[chosen] = start + within[positions[chosen] - start]
        # 2. the shard that holds that position, and the row in it
        holding = np.searchsorted(ends, unshuffled, side="right")
        begins = ends - self.size[shards]
        found: NDArray[np.int64] = self.first[shards[holding]] + unshuffled - begins[holding]
        return found


@functools.lru_cache(maxsize=8)
def _window(number: int, size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return permutation(f"window {number}", size, seed=seed, epoch=epoch)


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
