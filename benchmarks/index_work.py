"""One index of a data set in a process of its own: seconds of CPU, seconds of the clock, and memory.

`python -m benchmarks.index_work KIND PATH [stream]` prints them as JSON; with `stream` it also orders an epoch, and
reads batches from its beginning, middle and end.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from hard_ray.config.data import DataConfig
from hard_ray.data.schedule import train_schedule
from hard_ray.data.sources.build import build_index

BATCH = 1024
BATCHES = 10


def own_memory() -> int:
    """Bytes of this process that are no mapped file."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) * 1024


def main(kind: str, path: str, also: str = "") -> None:
    """Measure, and print JSON."""
    config = TypeAdapter[DataConfig](DataConfig).validate_python({"kind": kind, "path": path, "img_size": 8})
    warm = Path(path).with_name("warm") / kind
    build_index(TypeAdapter[DataConfig](DataConfig).validate_python({"kind": kind, "path": warm}))  # imports
    before, wall, cpu = own_memory(), time.perf_counter(), time.process_time()
    index = build_index(config)
    found = {
        "images": len(index.labels),
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
    }
    schedule = train_schedule(index, config, batch_size=BATCH, seed=0, rank=0, world_size=1)
    schedule.take(np.arange(BATCH))
    found["own_bytes"] = own_memory() - before
    if also == "stream":
        last = schedule.batches_per_epoch * BATCH
        read = 0
        for start in (0, last // 2 // BATCH * BATCH, last - BATCHES * BATCH):
            for number in range(BATCHES):
                rows, _ = schedule.take(np.arange(start + number * BATCH, start + (number + 1) * BATCH))
                read += sum(isinstance(picture, bytes) for picture in index.reader.read(rows.tolist()))
        assert read == 3 * BATCHES * BATCH
    found["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
