"""`make bench`: ratios of speed, each measured side by side in one run, as a table and as build/bench.json.

Rounds are interleaved, and results are medians of their ratios, because machines are shared and noisy. The machine
should be idle. $CIFAR10 names the images (else random ones are made), $TIMM_TRAIN timm's train.py.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks import (
    evaluating,
    hard_step,
    index,
    ingest,
    latency,
    memory,
    pick,
    scale,
    startup,
    storage,
    throughput,
    wire,
)
from benchmarks.work import BUILD, Measured, Place, prepare
from hard_ray.orchestration.cluster.hardware import probe

MEASURES: dict[str, tuple[Callable[[Place, int], Measured], int]] = {
    "hard_step": (hard_step.measure, 3),
    "pick": (pick.measure, 15),
    "ingest": (ingest.measure, 3),
    "latency": (latency.measure, 3),
    "evaluate": (evaluating.measure, 3),
    "throughput": (throughput.measure, 3),
    "priority": (throughput.measure_priority, 3),
    "startup": (startup.measure, 3),
    "scale": (scale.measure, 1),
    "memory": (memory.measure, 1),
    "wire": (wire.measure, 1),
    "index": (index.measure, 3),
    "storage": (storage.measure, 3),
}


@dataclass(frozen=True, slots=True)
class Bar:
    """The target of a ratio."""

    must: float
    aim: float
    at_most: bool = False

    def verdict(self, value: float) -> str:
        """Whether a value reaches the target, in a word."""
        aim, must = ((value <= bar) if self.at_most else (value >= bar) for bar in (self.aim, self.must))
        return "aim reached" if aim else "reached" if must else "NOT reached"


BARS = {
    "plain_loop": Bar(0.95, 1.2),
    "timm": Bar(1.2, 1.5),
    "ingest_folder": Bar(0.7, 1.0),
    "ingest_parquet": Bar(0.7, 1.0),
    **{f"latency_{replicas}": Bar(0.9, 0.97) for replicas in latency.REPLICAS},
    "hard_step": Bar(1.25, 1.1, at_most=True),
    "startup": Bar(1.5, 1.2, at_most=True),
    "scale": Bar(1.2, 1.1, at_most=True),
    "evaluate": Bar(0.95, 1.0),
    "pick_teacher_entropy": Bar(1.35, 1.3, at_most=True),
    "pick_kl_arithmetic": Bar(1.1, 1.05, at_most=True),
    "pick_student_entropy_arithmetic": Bar(1.1, 1.05, at_most=True),
    "index_us_parquet": Bar(0.5, 0.3, at_most=True),
    "index_us_webdataset": Bar(8.0, 4.0, at_most=True),
    "index_us_image_folder": Bar(6.0, 4.0, at_most=True),
    "index_own_bytes": Bar(16.0, 8.0, at_most=True),
    "index_many_gib": Bar(2.0, 1.0, at_most=True),
    "index_start_s_parquet": Bar(1.0, 0.2, at_most=True),
    "index_start_s_image_folder": Bar(1.0, 0.5, at_most=True),
    "storage_warm": Bar(0.95, 1.0),
    "storage_cold": Bar(0.6, 0.8),
    "memory_slope": Bar(0.01, 0.0, at_most=True),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; return 0 once everything was measured, at any result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(MEASURES), default=list(MEASURES))
    parser.add_argument("--rounds", type=int, default=None, help="of each measure; unset: as many as it needs")
    given = parser.parse_args(arguments)
    BUILD.mkdir(parents=True, exist_ok=True)
    path, place = BUILD.parent / "bench.json", prepare()
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"ratios": {}}
    hardware = probe()
    found |= {"machine": f"{hardware.cpu}, {hardware.cores} cores, {hardware.fast_dtype(on_gpu=False)}"}
    for name in given.only:
        call, rounds = MEASURES[name]
        began = time.monotonic()
        print(f"{name} ...", flush=True)
        found["ratios"] |= call(place, given.rounds or rounds)
        path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(f"  took {time.monotonic() - began:.0f} s", flush=True)
    print(table(found["ratios"], found["machine"]))
    return 0


def table(ratios: Measured, machine: str) -> str:
    """A table of ratios and targets."""
    lines = [machine, f"{'ratio':<34}{'measured':>10}{'must reach':>12}{'aim':>8}"]
    for name, value in sorted(ratios.items()):
        bar = BARS.get(name)
        sign = "" if bar is None else "<= " if bar.at_most else ">= "
        ends = "" if bar is None else f"{f'{sign}{bar.must:g}':>12}{bar.aim:>8g}  {bar.verdict(value)}"
        lines.append(f"{name:<34}{value:>10.3f}{ends}")
    missing = sorted(set(BARS) - set(ratios))
    return "\n".join([*lines, *([f"not measured: {', '.join(missing)}"] if missing else [])])


if __name__ == "__main__":
    raise SystemExit(main())
