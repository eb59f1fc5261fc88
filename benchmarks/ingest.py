"""Only reading, decoding and the training view: Ray Data's stream against torch's DataLoader."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from benchmarks.plain_loop import loader, train_views
from benchmarks.rounds import interleaved, median, ratio
from benchmarks.work import BATCH, BUILD, Measured, Place, quiet_ray
from hard_ray.config.loader import load_config
from hard_ray.data.schedule import train_schedule
from hard_ray.data.sources.build import build_index
from hard_ray.orchestration.cluster.demand import DataShare
from hard_ray.orchestration.cluster.hardware import usable_cores
from hard_ray.orchestration.stream import Pipeline

FIRST, STEPS = 40, 240


def speed(batches: Iterator[Any]) -> float:
    """Images per second between batch FIRST and batch STEPS."""
    began = 0.0
    for number, _ in enumerate(batches):
        if number == FIRST:
            began = time.perf_counter()
        if number == STEPS:
            return (STEPS - FIRST) * BATCH / (time.perf_counter() - began)
    raise RuntimeError("the data ended early")


def stream(data: Path, *overrides: str) -> float:
    """Images per second of hardray's stream."""
    config = load_config(preset="cifar10", overrides=[f"data.path={data}", *overrides])
    index = build_index(config.data)
    schedule = train_schedule(index, config.data, batch_size=BATCH, seed=0, rank=0, world_size=1)
    share = DataShare(float(usable_cores()), 0.5 * ray.cluster_resources()["object_store_memory"])
    pipeline = Pipeline(index, config.data, schedule, share, config.runtime.data_block_mb * 2**20)
    return speed(pipeline.train_batches(0))


def torch_loader(data: Path, *overrides: str, workers: int) -> float:
    """Images per second of torch's DataLoader."""
    return speed(loader(train_views(data, (STEPS + 1) * BATCH, *overrides), workers))


def as_parquet(data: Path) -> Path:
    """Write the folder's images to Parquet files once, with row groups of 1,000."""
    made = BUILD / f"parquet-{data.name}"
    for split in ("train", "test"):
        if (made / split / "0.parquet").exists():
            continue
        (made / split).mkdir(parents=True, exist_ok=True)
        names = sorted(path.name for path in (data / split).iterdir())
        files = [
            (path, number) for number, name in enumerate(names) for path in sorted((data / split / name).iterdir())
        ]
        images = [{"bytes": path.read_bytes(), "path": path.name} for path, _ in files]
        table = pa.table({"image": images, "label": pa.array([number for _, number in files], pa.int64())})
        pq.write_table(table, made / split / "0.parquet", row_group_size=1000)
    return made


def measure(place: Place, rounds: int) -> Measured:
    """`ingest_folder` and `ingest_parquet`: hardray's images per second over the DataLoader's."""
    cores, ratios = usable_cores(), {}
    kinds: dict[str, tuple[Path, tuple[str, ...]]] = {
        "folder": (place.data, ()),
        "parquet": (as_parquet(place.data), ("data.kind=parquet",)),
    }
    with quiet_ray(cores):
        for kind, (data, overrides) in kinds.items():
            measures = {
                "stream": functools.partial(stream, data, *overrides),
                "loader": functools.partial(torch_loader, data, *overrides, workers=cores),
            }
            found = interleaved(measures, rounds)
            ratios[f"ingest_{kind}"] = ratio(found["stream"], found["loader"])
            print(f"  {kind:<10}" + "".join(f"{n} {median(v):.0f} images/s  " for n, v in found.items()), flush=True)
    return ratios
