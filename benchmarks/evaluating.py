"""Images per second of `hardray evaluate` against a plain loop with the same network, views and precision."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import time
from pathlib import Path

import torch

from benchmarks.plain_loop import eval_views, loader
from benchmarks.rounds import interleaved
from benchmarks.work import BUILD, HARDRAY, SPEC, TEACHER, Measured, Place, against_plain, precision, python, run, show
from hard_ray.config.networks import StudentConfig
from hard_ray.networks.network import build_student

BATCH = 256


def hardray(place: Place) -> float:
    """Images per second by hardray's own count, which starts at the first answer, as for the plain loop."""
    output = BUILD / "evaluation"
    shutil.rmtree(output, ignore_errors=True)
    options = (
        f"--suite clean --split train --no-teacher --batch-size {BATCH} --preset cifar10 --data {place.data}".split()
    )
    text = run([HARDRAY, "evaluate", str(place.teacher), *options, "--output", str(output)], COLUMNS="200")
    found = re.search(r"([\d,]+) images/s", text)
    if found is None:
        raise RuntimeError(f"hardray evaluate printed no speed:\n{text[-2000:]}")
    return float(found[1].replace(",", ""))


def plain(place: Place, workers: int) -> float:
    """Images per second of the plain loop."""
    return python("evaluating", "--data", place.data, "--workers", workers)["images_per_s"]


def measure(place: Place, rounds: int) -> Measured:
    """`evaluate`: hardray's images per second over the plain loop's."""
    found = interleaved(
        {"hardray": lambda: hardray(place), "plain-0": lambda: plain(place, 0), "plain-2": lambda: plain(place, 2)},
        rounds,
    )
    show(found, "images/s")
    return {"evaluate": against_plain(found)}


@torch.no_grad()
def main() -> None:
    """Run the plain loop and print its images per second as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=0)
    given = parser.parse_args()
    fast = precision()
    network = build_student(StudentConfig(model=TEACHER), SPEC).to(memory_format=fast.memory_format).eval()
    views, right, done, began = eval_views(given.data, "train"), 0, 0, 0.0
    for pixels, labels in loader(views, given.workers, BATCH):
        with fast.autocast():
            logits = network((pixels.float() / 255.0).to(memory_format=fast.memory_format))
        right += int((logits.argmax(1) == labels).sum())
        done += len(labels)
        if not began:
            began, first = time.perf_counter(), done
    print(json.dumps({"images_per_s": (done - first) / (time.perf_counter() - began), "right": right}))


if __name__ == "__main__":
    main()
