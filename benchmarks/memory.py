"""Memory of all processes of a long run: its peak, and whether it grows."""

from __future__ import annotations

import json
import shutil
import subprocess
import time

import numpy as np
import psutil

from benchmarks.work import BUILD, HARDRAY, ROOT, Measured, Place
from hard_ray.run_folder import read_points

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
    seen: list[tuple[float, float]] = []
    while process.poll() is None:
        seen.append((time.time(), sum(map(own_bytes, psutil.Process(process.pid).children(recursive=True)))))
        time.sleep(5.0)
    if process.returncode != 0:
        raise RuntimeError(f"the run ended with {process.returncode}; its folder is {output}")
    points = [point for _, point in read_points(output / "metrics.jsonl") if point["kind"] == "train"]
    times, steps = np.array([[point["time"], point["step"]] for point in points]).T
    at = np.interp([moment for moment, _ in seen], times, steps, left=0, right=0)
    late = at >= FIRST
    used = np.array([used for _, used in seen])
    slope = float(np.polyfit(at[late], used[late], 1)[0]) * 10_000 / float(used[late].mean())
    (BUILD / "memory.json").write_text(json.dumps([at[late].tolist(), used[late].tolist()]))
    return {"memory_slope": slope, "memory_peak_gib": float(used.max()) / 2**30}


def own_bytes(process: psutil.Process) -> float:
    """What a process alone holds."""
    try:
        return float(process.memory_full_info().uss)
    except psutil.Error:
        return 0.0
