"""The training stream from an S3 server on loopback against the same shards in a folder, with a cold and a warm cache.

The server is moto's, a development dependency, in a process of its own that shares this machine's cores.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import time
from pathlib import Path

import pytest
import ray

from benchmarks.rounds import interleaved, median, ratio
from benchmarks.work import BATCH, BUILD, Measured, Place, quiet_ray
from hard_ray.config.loader import load_config
from hard_ray.data.schedule import train_schedule
from hard_ray.data.sources.build import build_index, cache_of
from hard_ray.orchestration.cluster.demand import DataShare
from hard_ray.orchestration.cluster.hardware import usable_cores
from hard_ray.orchestration.stream import Pipeline
from hard_ray.storage import objects
from tests.support.buckets import server_with

FOLDER = BUILD / "storage"
SHARD_IMAGES, SHARDS = 640, 20
FIRST = 5
"""The batch from which the clock runs: the start of Ray Data is no part of the speed."""


def shards(data: Path) -> Path:
    """WebDataset shards of the folder's first training images, once."""
    made = FOLDER / f"shards-{data.name}"
    if (made / f"train-{SHARDS - 1:05d}.tar").exists():
        return made
    made.mkdir(parents=True, exist_ok=True)
    names = sorted(path.name for path in (data / "train").iterdir())
    files = [(path, number) for number, name in enumerate(names) for path in sorted((data / "train" / name).iterdir())]
    files = files[:: max(1, len(files) // (SHARDS * SHARD_IMAGES))][: SHARDS * SHARD_IMAGES]
    for shard in range(SHARDS):
        with tarfile.open(made / f"train-{shard:05d}.tar", "w") as archive:
            for position, (path, number) in enumerate(files[shard::SHARDS]):
                label = FOLDER / "label"
                label.write_text(str(number), encoding="utf-8")
                archive.add(path, f"{shard:02d}{position:05d}.jpg")
                archive.add(label, f"{shard:02d}{position:05d}.cls")
    return made


def speed(path: str, cache: Path) -> float:
    """Images per second of one epoch of hardray's stream."""
    given = [f"data.path={path}", "data.kind=webdataset", "data.val_fraction=0.01", f"runtime.cache_dir={cache}"]
    config = load_config(preset="cifar10", overrides=given)
    index = build_index(config.data, cache=cache_of(config.runtime))
    schedule = train_schedule(index, config.data, batch_size=BATCH, seed=0, rank=0, world_size=1)
    share = DataShare(float(usable_cores()), 0.5 * ray.cluster_resources()["object_store_memory"])
    pipeline = Pipeline(index, config.data, schedule, share, config.runtime.data_block_mb * 2**20)
    began, last = 0.0, schedule.batches_per_epoch - 1
    for number, _ in enumerate(pipeline.train_batches(0)):
        if number == FIRST:
            began = time.perf_counter()
        if number == last:
            return (last - FIRST) * BATCH / (time.perf_counter() - began)
    raise RuntimeError("the data ended early")


def cold(path: str) -> float:
    """The speed with an empty cache; the index is made beforehand, as `hardray index` does, and does not fill it."""
    cache = FOLDER / "cold"
    shutil.rmtree(cache, ignore_errors=True)
    return speed(path, cache)


def measure(place: Place, rounds: int) -> Measured:
    """`storage_warm` and `storage_cold`: images per second from the bucket over those from the folder."""
    data = shards(place.data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARDRAY_CACHE", str(FOLDER / "index"))
        with server_with(FOLDER / "server.log", "bench") as server, quiet_ray(usable_cores()):
            remote = server.remote("bench", "data")
            for path in sorted(data.iterdir()):
                objects.write(remote / path.name, path.read_bytes())
            measures = {
                "local": lambda: speed(str(data), FOLDER / "none"),
                "warm": lambda: speed(str(remote), FOLDER / "warm"),
                "cold": lambda: cold(str(remote)),
            }
            _index_without_cache(str(remote))
            speed(str(remote), FOLDER / "warm")
            found = interleaved(measures, rounds)
    print("  " + "".join(f"{name} {median(values):.0f} images/s  " for name, values in found.items()), flush=True)
    print(f"  {os.cpu_count()} cores", flush=True)
    return {f"storage_{name}": ratio(found[name], found["local"]) for name in ("warm", "cold")}


def _index_without_cache(path: str) -> None:
    """Make the parts of the index, so that no measure contains it."""
    config = load_config(preset="cifar10", overrides=[f"data.path={path}", "data.kind=webdataset"])
    build_index(config.data, cache=cache_of(config.runtime.model_copy(update={"cache_gb": 0.0})))
