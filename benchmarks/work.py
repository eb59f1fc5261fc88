"""The workload: ResNet-20 teaches ResNet-8 on an image folder like CIFAR-10, in batches of 128.

$CIFAR10 names the folder, `{train,test}/class/*.jpg`. Without it, a folder of random images is made: the amount of work
is the same.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray
import torch
from PIL import Image

from benchmarks.rounds import median, ratio
from hard_ray.config.networks import StudentConfig
from hard_ray.config.runtime import Dtype
from hard_ray.export.timm_folder import EvalView, TrainingFacts, export_network
from hard_ray.networks.network import ImageSpec, build_student
from hard_ray.networks.precision import DTYPES, Precision
from hard_ray.orchestration.cluster.hardware import probe

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "bench"
HARDRAY = str(Path(sys.executable).with_name("hardray"))
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SPEC = ImageSpec(32, 3, CLASSES)
TEACHER, STUDENT = "cifar_resnet20", "cifar_resnet8"
BATCH = 128
MADE_IMAGES = {"train": 12_800, "test": 2_000}


@dataclass(frozen=True, slots=True)
class Place:
    """The inputs of every measure."""

    data: Path
    teacher: Path
    """Write a folder in timm's layout, with random weights: they cost as much as trained ones."""

    def overrides(self, **changed: object) -> list[str]:
        """The run of the workload, as overrides of the preset `cifar10`."""
        given = {
            "data.path": self.data,
            "teacher.checkpoint": self.teacher,
            "objective.kind": "kd",
            "augmentor.kind": "identity",
            "optim.batch_size": BATCH,
            "validate.every": 100_000,
            "validate.suites": "[clean]",
            "checkpoints.every": 100_000,
            "tracking.enabled": "false",
            "tracking.gallery_images": 0,
            **{key.replace("__", "."): value for key, value in changed.items()},
        }
        return [f"{key}={value}" for key, value in given.items()]


def prepare() -> Place:
    """Make the data and a teacher's folder, once."""
    given = os.environ.get("CIFAR10")
    data = Path(given).resolve() if given else _made_images(BUILD / "images")
    teacher = BUILD / "teacher"
    if not (teacher / "config.json").exists():
        torch.manual_seed(0)
        network = build_student(StudentConfig(model=TEACHER), SPEC, role="the teacher")
        export_network(
            network, teacher, images=SPEC, facts=TrainingFacts("random", 0, "none", "none", "none", 0, EvalView())
        )
    return Place(data, teacher)


def _made_images(folder: Path) -> Path:
    random = np.random.default_rng(0)
    for split, count in MADE_IMAGES.items():
        for number in range(count):
            path = folder / split / CLASSES[number % 10] / f"{number:05d}.jpg"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3)).astype(np.uint8))
                coarse.resize((32, 32), Image.Resampling.BICUBIC).save(path, quality=95)
    return folder


def python(module: str, *arguments: object, **environment: str) -> dict[str, float]:
    """Run a module of this folder in a process of its own; return its last line of output, parsed as JSON."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    return json.loads(run(command, **environment).strip().splitlines()[-1])  # type: ignore[no-any-return]


def run(command: Sequence[str], **environment: str) -> str:
    """Run a command to its end; return its output, errors first.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = done.stdout[-2000:] + done.stderr[-3000:]
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
    return done.stderr + done.stdout


Measured = dict[str, float]


@contextlib.contextmanager
def quiet_ray(cpus: int) -> Iterator[None]:
    """Start a Ray cluster in this process."""
    ray.init(address="local", num_cpus=cpus, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


def show(found: Mapping[str, Sequence[float]], unit: str, digits: int = 0) -> None:
    """Print the median of each measure."""
    for name, values in found.items():
        print(f"  {name:<10}{median(values):>10.{digits}f} {unit}", flush=True)


def against_plain(found: Mapping[str, Sequence[float]]) -> float:
    """The ratio of `hardray` to the better of the plain loops, whose names begin with `plain`."""
    best = max((name for name in found if name.startswith("plain")), key=lambda name: median(found[name]))
    return ratio(found["hardray"], found[best])


def precision() -> Precision:
    """The precision that hardray chooses for this machine's CPU."""
    hardware = probe()
    dtype = hardware.fast_dtype(on_gpu=False)
    last = hardware.prefers_channels_last(dtype, on_gpu=False)
    return Precision(torch.device("cpu"), DTYPES[dtype], channels_last=last)


def fast_dtype() -> Dtype:
    """The type of its kernels."""
    return probe().fast_dtype(on_gpu=False)
