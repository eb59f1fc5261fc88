"""Whole runs: `hardray distill` with Ray Data and a teacher pool, against a plain loop that torch's DataLoader feeds.

Teacher and student share a card by fractions, or have one each. Both loops decode the same JPEGs. They take turns in
processes of their own, so that none holds memory of the card while another is measured: plain, hardray, plain.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.gpu import card
from benchmarks.gpu.isolated import Isolated, PartError, Start, Values
from benchmarks.gpu.plain import Plain
from benchmarks.gpu.workload import FOLDER_CLASSES, STUDENT_STEPS, Compile, Method, Pair, Workload, view_of
from hard_ray.config.run import RunConfig
from hard_ray.networks.network import build_student

Place = Literal["pool, same card", "pool, own card"]
GPUS: dict[Place, float] = {"pool, same card": 0.5, "pool, own card": 1.0}
"""GPUs of the worker, and of the replica."""

NEEDED = ("ray", "mlflow", "pyarrow", "scipy", "sklearn", "psutil")
"""What runs need beside the requirements of the loop in one process."""

LOOP_S, TINY_LOOP_S = 5.0, 0.2
SKIPPED = 0.3
"""The share of the updates after which hardray's clock starts: before, pool and stream fill up."""
CLOSING_S = 4.0


def measure(
    work: Workload, pair: Pair, method: Method, how: Compile, place: Place, start: Start, until: float
) -> Values:
    """Compare both, and end by `until`, of time.monotonic().

    Raises:
        ModuleNotFoundError: Ray, or another requirement of a run, is not installed.
    """
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    work = replace(work, classes=FOLDER_CLASSES)

    def part(call: Callable[[], Values]) -> Values:
        outcome = Isolated(call, start=start).result(until - CLOSING_S)
        if outcome.error is not None:
            raise PartError(outcome)
        return outcome.values

    plain = functools.partial(plain_loop, work, pair, method, how)
    before = part(plain)
    updates = max(20, min(400, round(before["images_per_s"] * (1.0 if work.tiny else 8.0) / work.batch)))
    found = part(functools.partial(whole_run, work, pair, method, how, place, updates))
    after = part(plain)
    rates = [before["images_per_s"], after["images_per_s"]]
    return {
        **found,
        "plain_images_per_s": sum(rates) / 2,
        "ratio": found["images_per_s"] / (sum(rates) / 2),
        "plain_peak_gib": before["peak_gib"],
    }


class Views(Dataset[tuple[Tensor, int]]):
    """Views of the JPEGs, again and again."""

    def __init__(self, work: Workload) -> None:
        self.size = work.size
        self.names = sorted((work.jpegs / "train").rglob("*.jpg"))

    def __len__(self) -> int:
        return 2**31

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        name = self.names[number * 7919 % len(self.names)]
        return torch.from_numpy(view_of(name, self.size)), int(name.parent.name.split()[-1])


def plain_loop(work: Workload, pair: Pair, method: Method, how: Compile) -> Values:
    """Images per second of the plain loop on all cores."""
    on_card = work.device == "cuda"
    workers = max(1, (os.cpu_count() or 2) - 1)
    loader = DataLoader(Views(work), batch_size=work.batch, num_workers=workers, prefetch_factor=4, pin_memory=on_card)
    batches: Iterator[tuple[Tensor, Tensor]] = iter(loader)
    plain = Plain(work, pair, method, how, batches)
    card.forget_peak(work.device)
    plain.more(2 * STUDENT_STEPS)
    card.wait(work.device)
    began, images = time.perf_counter(), 0
    while time.perf_counter() < began + (TINY_LOOP_S if work.tiny else LOOP_S):
        images += work.batch * sum(plain.more(STUDENT_STEPS))
        card.wait(work.device)
    return {"images_per_s": images / (time.perf_counter() - began), "peak_gib": card.peak_gib(work.device)}


def whole_run(work: Workload, pair: Pair, method: Method, how: Compile, place: Place, updates: int) -> Values:
    """Images per second of a run, the card's idle share and the memory of all its processes meanwhile."""
    from hard_ray.api import distill
    from hard_ray.runs.log import read_points

    every = max(1, updates // 10)
    config = run_config(work, pair, method, how, place, updates, every)
    output = work.folder / "whole"
    shutil.rmtree(output, ignore_errors=True)
    with Watch(cards=1 if GPUS[place] < 1.0 else 2) as watch:
        distill(config, output)
    points = [point for _, point in read_points(output / "metrics.jsonl") if point["kind"] == "train"]
    first = next(point for point in points if point["student_step"] >= SKIPPED * updates)
    last = points[-1]
    images = (last["step"] - first["step"]) * work.batch
    return {"images_per_s": images / (last["time"] - first["time"]), **watch.between(first["time"], last["time"])}


def run_config(
    work: Workload, pair: Pair, method: Method, how: Compile, place: Place, updates: int, log_every: int
) -> RunConfig:
    """The run with its pool on the card, without evaluations in between."""
    overrides = [
        f"teacher.checkpoint={teacher_folder(work, pair)}",
        f"optim.steps={updates}",
        f"tracking.log_every={log_every}",
        "tracking.enabled=false",
        "tracking.gallery_images=0",
        "experiment.controls=[]",
        "validate.every=1000000",
        "validate.suites=[clean]",
        "checkpoints.every=1000000",
    ]
    if work.device == "cuda":
        overrides += [f"runtime.gpus_per_worker={GPUS[place]}", f"runtime.teacher.num_gpus={GPUS[place]}"]
    return work.config(pair, method, *overrides, how=how)


def teacher_folder(work: Workload, pair: Pair) -> Path:
    """A teacher with random weights in timm's layout: they cost as much as trained ones."""
    from hard_ray.export.timm_folder import EvalView, TrainingFacts, export_network

    folder = work.folder / f"teacher-{pair.teacher}"
    if not (folder / "config.json").exists():
        torch.manual_seed(0)
        config = work.config(pair, "KD").student.model_copy(update={"model": pair.teacher})
        facts = TrainingFacts("random", 0, "none", "none", "none", 0, EvalView())
        export_network(build_student(config, work.spec, role="the teacher"), folder, images=work.spec, facts=facts)
    return folder


@dataclass(frozen=True, slots=True)
class Sample:
    """What NVIDIA's tool says of a card at a time (of time.time())."""

    at: float
    card: str
    busy: float
    """The share of the time since the last sample in which a kernel ran."""
    gib: float
    """Memory that is taken, by all processes."""

    @classmethod
    def of(cls, line: str, at: float) -> Sample:
        """Read a line: the card, percent of the time, MiB."""
        card, busy, mib = (part.strip() for part in line.split(","))
        return cls(at, card, float(busy) / 100.0, float(mib) / 1024.0)


@dataclass(slots=True)
class Watch:
    """Watches cards by NVIDIA's own tool, five times a second; without a card, it sees nothing."""

    cards: int
    """How many, from the first visible one on."""
    samples: list[Sample] = field(default_factory=list)
    _process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Watch:
        """Begin."""
        tool = shutil.which("nvidia-smi")
        if tool is not None and torch.cuda.device_count():
            visible = os.environ.get("CUDA_VISIBLE_DEVICES") or "0,1"
            ids = ",".join(visible.split(",")[: self.cards])
            query = ["--query-gpu=index,utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
            command = [tool, *query, f"--id={ids}", "--loop-ms=200"]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            threading.Thread(target=self._read, daemon=True).start()
        return self

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.samples.append(Sample.of(line, time.time()))

    def __exit__(self, *_: object) -> None:
        """End."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def between(self, first: float, last: float) -> dict[str, float]:
        """The idle share of the busiest card and the most memory of one, between two times (of time.time())."""
        seen = [sample for sample in self.samples if first <= sample.at <= last]
        if not seen:
            return {}
        busy = [statistics.mean(s.busy for s in seen if s.card == card) for card in {s.card for s in seen}]
        return {"idle": 1.0 - max(busy), "peak_gib": max(sample.gib for sample in seen)}
