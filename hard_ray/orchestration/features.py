"""The features of a tower, computed once by a Ray Data job whose actors hold it, and kept in a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hard_ray.config.networks import NetworkConfig
from hard_ray.config.run import RunConfig
from hard_ray.data.checked_shard import ShardHeader
from hard_ray.data.feature_shard import Features, read_features
from hard_ray.data.index import NO_LABEL, ImageIndex, Rows, spread_places
from hard_ray.data.pictures import EvalPictures
from hard_ray.data.views import eval_view_settings
from hard_ray.errors import DataError, ModelError
from hard_ray.files import make_folder
from hard_ray.networks.network import ImageSpec
from hard_ray.networks.precision import prepare_kernels
from hard_ray.networks.towers import Tower
from hard_ray.orchestration.cluster.resources import Cluster
from hard_ray.orchestration.network_actors import Actors, networks_only
from hard_ray.orchestration.pool.client import PoolAddress
from hard_ray.orchestration.shard_job import ShardActor, ShardJob, ShardsGoTo
from hard_ray.orchestration.shipped import Shipped
from hard_ray.preparation.features import SHARD_IMAGES, FrozenTower, feature_settings, make_shard
from hard_ray.preparation.folders import ShardFolder
from hard_ray.storage.mirror import Mirror


@dataclass(frozen=True, slots=True)
class FeaturePlan:
    """Settings that every actor receives."""

    tower: NetworkConfig
    images: ImageSpec
    identity: str
    threads: int | None
    to: ShardsGoTo
    settings: dict[str, Any]
    missing: tuple[tuple[int, range], ...]


class FeatureActor(ShardActor[FeaturePlan]):
    """Makes shards one after the other; loads the tower with the first."""

    def __init__(self, plan: FeaturePlan, pictures: Shipped[EvalPictures]) -> None:
        super().__init__(plan, pictures)
        self._parts: tuple[FrozenTower, EvalPictures] | None = None

    def make(self, number: int, span: range, folder: Path) -> ShardHeader:
        """Compute and write a shard."""
        if self._parts is None:
            self._parts = self._load()
        tower, pictures = self._parts
        return make_shard(tower, pictures, number, span, settings=self.plan.settings, folder=folder)

    def _load(self) -> tuple[FrozenTower, EvalPictures]:
        plan = self.plan
        prepare_kernels(plan.threads, deterministic=True, tf32=False)
        tower = FrozenTower.build(plan.tower, plan.images)
        if tower.network.identity() != plan.identity:
            raise ModelError(
                f"teacher.model {plan.tower.model} has other weights on {os.uname().nodename} than where the command "
                "was started; every node must load the same weights"
            )
        return tower, self.pictures.get()


@dataclass(slots=True)
class FeatureJob(ShardJob[FeaturePlan]):
    """One start of a job that makes the missing shards of features."""

    actor = FeatureActor

    tower: Tower
    network: NetworkConfig
    images: ImageSpec
    covered: Rows

    @property
    def rows(self) -> Rows:
        """The rows of the index that have features."""
        return self.covered

    @property
    def shard_size(self) -> int:
        """Images per shard."""
        return SHARD_IMAGES

    def _verify(self, path: Path, number: int) -> ShardHeader:
        return read_features(path, number, self.settings)[0]

    def _actors(self, cluster: Cluster) -> Actors:
        return Actors.of(self.config.runtime, cluster)

    def _plan(self, done: Mapping[int, ShardHeader], _: PoolAddress | None) -> FeaturePlan:
        return FeaturePlan(
            tower=self.network,
            images=self.images,
            identity=self.settings["tower"],
            threads=self.config.runtime.threads,
            to=self.shards_go_to,
            settings=self.settings,
            missing=tuple((number, span) for number, span in enumerate(self.spans) if number not in done),
        )

    def run(self) -> Features:
        """Make the missing shards and read all; raises DataError if too many images are unreadable."""
        done = self._verified()
        if extra := sorted(done.keys() - range(len(self.spans))):
            raise DataError(
                f"{self.folder.shard(extra[0])} is of more images than there are; delete {self.folder.path}, or "
                "choose another --output"
            )
        if len(done) < len(self.spans):
            with networks_only(self.config, self.folder.path.parent, self.say) as (self.config, cluster):
                error = self._survive(None, done, cluster)
            if error is not None:
                raise error
            if self.mirror is not None:
                self.mirror.pull()
        if problem := self._bad(done).problem():
            raise problem
        parts = [read_features(self.folder.shard(n), n, self.settings)[1] for n in range(len(self.spans))]
        features = Features.joined(parts)
        if not len(features.sample_ids):
            raise DataError(f"no image can be read: {self._bad(done).first}; repair the data")
        if not np.isfinite(features.values).all():
            row = int(features.sample_ids[~np.isfinite(features.values).all(axis=1)][0])
            raise ModelError(
                f"teacher.model {self.tower.name} gives features that are not finite for "
                f"{self.index.reader.name(row)}; want finite ones; give other weights, or leave the image out"
            )
        return features


def rows_of(
    index: ImageIndex, splits: Sequence[str], images: int | None = None, *, labelled: bool = False
) -> dict[str, Rows]:
    """The rows of those splits that the data have; of each at most `images`, spread over it.

    With `labelled`, images without a label are left out.
    """
    found = {split: index.rows(split) for split in splits if split in index.splits}
    if labelled:
        found = {split: rows[index.labels[rows] != NO_LABEL] for split, rows in found.items()}
    return found if images is None else {k: rows[spread_places(len(rows), images)] for k, rows in found.items()}


def compute_features(
    tower: Tower,
    network: NetworkConfig,
    config: RunConfig,
    index: ImageIndex,
    rows: Mapping[str, Rows],
    folder: Path,
    *,
    images: ImageSpec,
    mirror: Mirror | None,
    say: Callable[[str], None],
) -> dict[str, Features]:
    """The features of the rows of each split, from `folder` as far as they are there.

    `network` is the configuration of `tower`, from which actors load it. Unreadable images are left out. `mirror` is
    the URL that `folder`, or one above it, is a working copy of.

    Raises:
        HardrayError: a shard in the folder is damaged or of other images, or too many images are unreadable.
        StoppedError: Ctrl-C; the same call continues.
    """
    covered = np.concatenate(list(rows.values()))
    make_folder(folder)
    settings = feature_settings(tower, index, covered, eval_view_settings(config.data))
    job = FeatureJob(config, index, ShardFolder(folder), settings, tower, network, images, covered)
    job.say, job.mirror = say, mirror
    features = job.run()
    return {split: features.of(each) for split, each in rows.items()}
