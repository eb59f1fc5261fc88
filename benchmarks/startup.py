"""Seconds from the command to the first student update, against a bare Ray Train job with the same imports."""

from __future__ import annotations

import shutil
import time

from benchmarks.rounds import interleaved, ratio
from benchmarks.work import BUILD, HARDRAY, Measured, Place, python, run, show
from hard_ray.runs.log import read_points


def hardray(place: Place) -> float:
    """Seconds of `hardray distill`."""
    output = BUILD / "startup"
    shutil.rmtree(output, ignore_errors=True)
    began = time.time()
    given = place.overrides(optim__steps=2, tracking__log_every=1)
    run([HARDRAY, "distill", "--preset", "cifar10", "--output", str(output), *given])
    points = [point for _, point in read_points(output / "metrics.jsonl") if point["kind"] == "train"]
    return float(points[0]["time"]) - began


def bare() -> float:
    """Seconds of the bare job."""
    began = time.time()
    return python("bare_train", RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.2")["first"] - began


def measure(place: Place, rounds: int) -> Measured:
    """`startup`: hardray's seconds over the bare job's."""
    found = interleaved({"hardray": lambda: hardray(place), "bare": bare}, rounds, "s")
    show(found, "s", digits=1)
    return {"startup": ratio(found["hardray"], found["bare"])}
