"""The order of images in every epoch, as a pure function of the seed.

Ray Data streams and transforms, but never decides the order. A batch is a function of (seed, epoch, index), so that
a run that resumes at any batch sees the same images as one that was never interrupted.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hard_ray.config.data import DataConfig
from hard_ray.data.index import ImageIndex, Rows
from hard_ray.errors import DataError
from hard_ray.maths.noise import permutation


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
        return slice(*(rank * self.batch_size // self.world_size for rank in (self.rank, self.rank + 1)))

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
) -> Schedule:
    """The schedule of a training split; raises DataError if it is smaller than one batch."""
    rows = index.rows("train")
    shard = None if index.shard is None else index.shard[rows]
    return Schedule(rows, batch_size, seed, rank, world_size, shard, getattr(config, "shuffle_window", 4096))
