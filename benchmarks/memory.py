"""Peak and growth of the memory of all processes of a long run."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import psutil

from benchmarks.work import BUILD, HARDRAY, ROOT, Measured, Place
from hard_ray.runs.log import read_points

FIRST, STEPS = 2_000, 12_000
QUICK = f"""--preset digits optim.steps={STEPS} optim.batch_size=32 experiment.controls=[] validate.every=1000
  checkpoints.every=50 tracking.enabled=false tracking.gallery_images=0 tracking.log_every=100""".split()


def measure(place: Place, rounds: int) -> Measured:
    """`memory_slope`: growth over 10,000 updates as a share; `memory_peak_gib` of all processes together."""
    del place, rounds
    output = BUILD / "memory"
    shutil.rmtree(output, ignore_errors=True)
    process = subprocess.Popen(
        [HARDRAY, "distill", "--output", str(output), *QUICK], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    driver = psutil.Process(process.pid)
    seen: list[tuple[float, dict[str, float]]] = []
    while process.poll() is None:
        seen.append((time.time(), own_bytes([driver, *driver.children(recursive=True)])))
        time.sleep(5.0)
    if process.returncode != 0:
        raise RuntimeError(f"the run ended with {process.returncode}; its folder is {output}")
    points = [point for _, point in read_points(output / "metrics.jsonl") if point["kind"] == "train"]
    times, steps = np.array([[point["time"], point["step"]] for point in points]).T
    at = np.interp([moment for moment, _ in seen], times, steps, left=0, right=0)
    late = [(step, held) for step, (_, held) in zip(at.tolist(), seen, strict=True) if step >= FIRST]
    (BUILD / "memory.json").write_text(json.dumps(late))
    whole = float(np.mean([sum(held.values()) for _, held in late]))
    names = {name for _, held in late for name in held}
    slopes = {name: growth([(step, held.get(name, 0.0)) for step, held in late]) for name in names}
    for name, slope in sorted(slopes.items(), key=lambda item: -abs(item[1])):
        print(f"  {name:<34}{slope / 2**20:>8.1f} MiB in 10,000 updates", flush=True)
    peak = max(sum(held.values()) for _, held in seen)
    return {"memory_slope": sum(slopes.values()) / whole, "memory_peak_gib": peak / 2**30}


def growth(held: Sequence[tuple[float, float]]) -> float:
    """Growth in bytes over 10,000 updates, from a line fitted to pairs of update and bytes."""
    steps, used = np.array(held).T
    return float(np.polyfit(steps, used, 1)[0]) * 10_000


def own_bytes(processes: Sequence[psutil.Process]) -> dict[str, float]:
    """Private memory of the processes, summed by name: Ray names its workers by their task."""
    found: dict[str, float] = defaultdict(float)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            named = command[0] if command and command[0].startswith("ray::") else process.name()
            found[named.split(".")[0]] += float(process.memory_full_info().uss)
    return found
