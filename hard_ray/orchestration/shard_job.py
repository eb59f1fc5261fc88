"""A Ray Data job whose actors make whole shards of a folder; it continues with the shards that are there."""

from __future__ import annotations

import contextlib
import json
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import ray
from ray.data import ActorPoolStrategy
from ray.exceptions import RayError, RayTaskError

from hard_ray.config.run import RunConfig
from hard_ray.data.checked_shard import ShardHeader, shard_name, spans
from hard_ray.data.index import ImageIndex, Rows
from hard_ray.data.pictures import Columns, EvalPictures
from hard_ray.errors import HardrayError, StoppedError
from hard_ray.orchestration.cluster.demand import DataShare
from hard_ray.orchestration.cluster.resources import Cluster, data_shares
from hard_ray.orchestration.network_actors import Actors
from hard_ray.orchestration.pool.client import PoolAddress
from hard_ray.orchestration.progress import ProgressLine
from hard_ray.orchestration.shipped import Shipped
from hard_ray.orchestration.stream import configure_ray_data
from hard_ray.preparation.folders import ShardFolder
from hard_ray.runs.bad_images import BadImages
from hard_ray.storage.address import Remote
from hard_ray.storage.mirror import Entry, Mirror, send_alone, shown_path


@dataclass(frozen=True, slots=True)
class ShardsGoTo:
    """Where actors put the shards that they have made."""

    folder: Path
    """The folder, which every node sees."""
    url: str | None = None
    """The URL that the folder is a working copy of: shards are sent there, and stay on no node. None: there is none."""

    @contextlib.contextmanager
    def place(self) -> Iterator[Path]:
        """The folder to write one shard to."""
        if self.url is None:
            yield self.folder
            return
        with tempfile.TemporaryDirectory(prefix="hardray-shard-") as temporary:
            yield Path(temporary)

    def sent(self, path: Path) -> Entry | None:
        """Send a shard that was written in `place`; None: there is no URL."""
        return None if self.url is None else send_alone(Remote.parse(self.url), path)


class ShardPlan(Protocol):
    """Settings that every actor receives."""

    @property
    def to(self) -> ShardsGoTo:
        """Where the shards go."""

    @property
    def missing(self) -> tuple[tuple[int, range], ...]:
        """Number and positions of each missing shard."""


MADE = ("header", "entry", "error")
"""What an actor returns of each shard, as JSON."""

PlanT = TypeVar("PlanT", bound=ShardPlan)


class ShardActor(ABC, Generic[PlanT]):
    """Makes shards one after the other."""

    def __init__(self, plan: PlanT, pictures: Shipped[EvalPictures]) -> None:
        self.plan = plan
        self.pictures = pictures

    def __call__(self, block: Columns) -> Columns:
        """Make the shards of a block of numbers; return a header and an entry at the URL, or an error, for each."""
        made = [self._made(*self.plan.missing[int(position)]) for position in block["id"]]
        return {key: np.array([each.get(key, "") for each in made], dtype=object) for key in MADE}

    def _made(self, number: int, span: range) -> dict[str, str]:
        try:
            with self.plan.to.place() as folder:
                header = self.make(number, span, folder)
                entry = self.plan.to.sent(folder / shard_name(number))
        except HardrayError as error:  # as a value: Ray Data would wrap an exception in its own
            return {"error": str(error)}
        return {"header": json.dumps(asdict(header)), "entry": json.dumps(entry and asdict(entry))}

    @abstractmethod
    def make(self, number: int, span: range, folder: Path) -> ShardHeader:
        """Make the shard with this number, of the images at the positions `span`, and write it into a folder."""


@dataclass(slots=True)
class ShardJob(ABC, Generic[PlanT]):
    """One start of a job that makes the missing shards of a folder."""

    actor: ClassVar[type[Any]]
    """The `ShardActor` of the job."""

    config: RunConfig
    index: ImageIndex
    folder: ShardFolder
    settings: dict[str, Any]
    """Everything that decides the content of the shards."""
    say: Callable[[str], None] = field(init=False)
    mirror: Mirror | None = field(init=False, default=None)
    """The URL that the folder, or one above it, is a working copy of."""

    @property
    @abstractmethod
    def rows(self) -> Rows:
        """The rows of the index that the shards cover, in order."""

    @property
    @abstractmethod
    def shard_size(self) -> int:
        """Images per shard."""

    @property
    def spans(self) -> list[range]:
        """Positions in `rows` that each shard covers."""
        return spans(len(self.rows), self.shard_size)

    @property
    def shards_go_to(self) -> ShardsGoTo:
        """Where the actors put the shards."""
        return ShardsGoTo(self.folder.path, None if self.mirror is None else str(self.mirror.remote))

    @abstractmethod
    def _plan(self, done: Mapping[int, ShardHeader], pool: PoolAddress | None) -> PlanT:
        """Settings for the actors that make the shards which `done` lacks."""

    @abstractmethod
    def _verify(self, path: Path, number: int) -> ShardHeader:
        """Verify a shard in the folder; raises DataError if it is damaged, or was made with other settings."""

    def _actors(self, _: Cluster) -> Actors:
        """Reserve as much for the actors as student workers would."""
        runtime = self.config.runtime
        return Actors(runtime.num_workers, runtime.cpus_per_worker, runtime.gpus_per_worker or 0.0, runtime.threads)

    def _verified(self) -> dict[int, ShardHeader]:
        """Verify the shards in the folder, and delete unfinished ones."""
        for path in self.folder.path.glob(".shard-*.tmp"):
            path.unlink()
        found = {number: self._verify(path, number) for number, path in self.folder.shards().items()}
        if found:
            self.say(f"{len(found)} of {len(self.spans)} shards are there, and intact")
        return found

    def _survive(self, pool: PoolAddress | None, done: dict[int, ShardHeader], cluster: Cluster) -> HardrayError | None:
        """Run the job, again each time an actor dies; return the error that ended it early, if any."""
        for left in range(self.config.runtime.max_failures, -1, -1):
            try:
                return self._stream(self._plan(done, pool), done, cluster)
            except RayError as failure:
                reason = (str(failure).strip() or type(failure).__name__).splitlines()[0]
                if isinstance(failure, RayTaskError) or not left:
                    raise HardrayError(f"the same command continues, but this one failed: {reason}") from failure
            self.say(f"an actor died ({reason}); the missing shards are started again")
        return None

    def _stream(self, plan: PlanT, done: dict[int, ShardHeader], cluster: Cluster) -> HardrayError | None:
        """Add finished shards to `done`; return an early error: if raised, the pool would stop before the job."""
        progress = ProgressLine(self.say)
        try:
            # without prefetching, which would report a shard only when the next is finished
            for row in self._dataset(plan, cluster).iter_batches(batch_size=1, prefetch_batches=0):
                if error := str(row["error"][0]):
                    return HardrayError(error)
                header = ShardHeader.of(json.loads(str(row["header"][0])))
                self._adopt(header, json.loads(str(row["entry"][0])))
                done[header.shard] = header
                self._report(progress, header, len(done))
                if too_many := self._bad(done).problem():
                    return too_many
        except KeyboardInterrupt:
            there = f"{len(done)} of {len(self.spans)} shards are there"
            return StoppedError(f"stopped; {there}, and the same command continues {shown_path(self.folder.path)}")
        return None

    def _adopt(self, header: ShardHeader, entry: dict[str, Any] | None) -> None:
        """Name a shard that an actor has sent in the URL's manifest."""
        if self.mirror is not None and entry is not None:
            name = self.folder.shard(header.shard).relative_to(self.mirror.folder.resolve())
            self.mirror.adopt({name.as_posix(): Entry(**entry)})

    def _report(self, progress: ProgressLine, header: ShardHeader, done: int) -> None:
        progress.add(header.rows)
        if progress.is_due or done == len(self.spans):
            speed = f"  {progress.images_per_s:,.0f} images/s" if progress.images_per_s else ""
            progress.say(f"shard {done:>5} of {len(self.spans)}{speed}")

    def _dataset(self, plan: PlanT, cluster: Cluster) -> ray.data.Dataset:
        """Stream shards, a block for each."""
        runtime = self.config.runtime
        left = data_shares(runtime, cluster)
        actors = self._actors(cluster)
        configure_ray_data(
            DataShare(left.cpus + runtime.num_workers * runtime.cpus_per_worker, left.object_store_bytes)
        )
        index, data = self.index, self.config.data
        pictures = Shipped.put(EvalPictures(index.reader, index.labels, data, self.rows))
        numbers = ray.data.range(len(plan.missing), override_num_blocks=len(plan.missing))
        with warnings.catch_warnings():  # of max_restarts, which Ray 2.64 replaces
            warnings.simplefilter("ignore", DeprecationWarning)
            return numbers.map_batches(
                self.actor,
                fn_constructor_args=(plan, pictures),
                batch_size=1,
                compute=ActorPoolStrategy(size=min(actors.number, len(plan.missing)), max_tasks_in_flight_per_actor=1),
                num_cpus=actors.cpus,
                num_gpus=actors.gpus,
                max_restarts=0,  # `_survive` starts a new job for the missing shards instead
            )

    def _bad(self, done: dict[int, ShardHeader]) -> BadImages:
        bad = BadImages.allowed_by(self.config.data, len(self.index.labels))
        bad.names.update(name for header in done.values() for name in header.bad)
        return bad
