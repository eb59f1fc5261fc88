"""`hardray index`: the index of a data set, made beforehand, and what was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import ray
from ray.exceptions import RayTaskError

from hard_ray.config.run import RunConfig
from hard_ray.data.account_text import account_lines
from hard_ray.data.index import NO_LABEL, ImageIndex
from hard_ray.data.kept_index import LEAST_IMAGES
from hard_ray.data.mapped import Mapped
from hard_ray.data.readers import ParquetReader, TarReader
from hard_ray.data.remote_folders import ShardFile, size_of
from hard_ray.data.sources.build import build_index, cache_of
from hard_ray.data.sources.parts import Make, Part, in_threads
from hard_ray.errors import HardrayError
from hard_ray.orchestration.cluster.address import address_of
from hard_ray.orchestration.cluster.connection import connected
from hard_ray.orchestration.progress import ProgressLine

AHEAD = 4
"""Tasks that wait or run for each CPU of the cluster."""
SHOWN_CLASSES = 20


@dataclass(slots=True)
class OnRay:
    """Makes the parts of shards by tasks of a Ray cluster, one for each shard."""

    say: Callable[[str], None]
    progress: ProgressLine = field(init=False)

    def __post_init__(self) -> None:
        self.progress = ProgressLine(self.say)

    def __call__(self, make: Make, paths: Sequence[ShardFile]) -> Iterator[Part]:
        """The parts, in the order of the shards; raises the HardrayError of a shard that cannot be read."""
        task = ray.remote(num_cpus=1)(_made)
        most = max(1, AHEAD * int(ray.cluster_resources().get("CPU", 1)))
        asked: list[ray.ObjectRef[Part]] = []
        for number in range(len(paths)):
            while len(asked) < min(len(paths), number + most):
                asked.append(task.remote(make, paths[len(asked)]))
            try:
                part = ray.get(asked[number])
            except RayTaskError as failure:
                if isinstance(failure.cause, HardrayError):  # its text is for the user, Ray's is a traceback
                    raise failure.cause from None
                raise
            self.progress.add(len(part.labels))
            if self.progress.is_due:
                speed = f", {self.progress.images_per_s:,.0f} images/s" if self.progress.images_per_s else ""
                self.progress.say(f"{number + 1:,} of {len(paths):,} shards{speed}")
            yield part


def _made(make: Make, path: ShardFile) -> Part:
    """A task's work: Ray takes functions of modules, not those with arguments of their own."""
    return make(path)


def index(config: RunConfig, *, say: Callable[[str], None] = lambda _: None) -> list[tuple[str, str]]:
    """Make the index of `config.data`, and keep it for later starts; returns what was found as headings and lines.

    With `runtime.address` or RAY_ADDRESS, the tasks of that cluster read the shards; otherwise threads of this process.

    Raises:
        HardrayError: the data cannot be used; the message says why.
    """
    began = time.perf_counter()
    if address_of(config.runtime):
        with connected(config.runtime, namespace="index", say=say):
            found = build_index(config.data, OnRay(say), cache=cache_of(config.runtime))
    else:
        found = build_index(config.data, in_threads, cache=cache_of(config.runtime))
    seconds = time.perf_counter() - began
    return [*account_lines(found), *_size_lines(found), ("index", _where(found, seconds))]


def _where(index: ImageIndex, seconds: float) -> str:
    """Where the index is kept, and what it took."""
    took = f"{seconds:.1f} s for {len(index.labels):,} images"
    if isinstance(index.labels, Mapped) and index.labels.place is not None:
        folder = Path(index.labels.place.folder)
        size = sum(path.stat().st_size for path in folder.iterdir())
        return f"{folder}, {size / 2**20:,.1f} MiB; {took}"
    return f"not kept: it has fewer than {LEAST_IMAGES:,} images, and is made at each start; {took}"


def _size_lines(index: ImageIndex) -> list[tuple[str, str]]:
    """The shards and their sizes, and how many training images each class has."""
    lines = []
    if isinstance(index.reader, ParquetReader | TarReader):
        sizes = [size_of(path) for path in index.reader.files]
        lines.append(
            (
                "shards",
                f"{len(sizes):,}, {sum(sizes) / 2**20:,.1f} MiB; from {min(sizes) / 2**20:,.2f} to "
                f"{max(sizes) / 2**20:,.2f} MiB",
            )
        )
    if index.has_labels:
        labels = index.labels[index.rows("train")]
        counts = np.bincount(labels[labels != NO_LABEL], minlength=len(index.classes))
        order = np.argsort(-counts, kind="stable")
        shown = ", ".join(f"{index.classes[number]} {counts[number]:,}" for number in order[:SHOWN_CLASSES])
        rest = f" and {len(order) - SHOWN_CLASSES:,} more" if len(order) > SHOWN_CLASSES else ""
        lines.append(("train", f"{shown}{rest}"))
    return lines
