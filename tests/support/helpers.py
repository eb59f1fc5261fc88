"""What several tests need: small runs in this process, and a data folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from hard_ray.config.loader import load_config
from hard_ray.config.run import RunConfig, as_control
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.data.batch import Batch
from hard_ray.data.index import ImageIndex, Rows
from hard_ray.data.pictures import EvalPictures, TrainPictures, to_batch
from hard_ray.data.schedule import Schedule
from hard_ray.data.sources.build import build_index
from hard_ray.distillation.loop import Status
from hard_ray.distillation.step import Updater
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool, TeacherPool
from hard_ray.files import write_json, write_text
from hard_ray.networks.network import build_student, image_spec
from hard_ray.orchestration.cluster.demand import DataShare
from hard_ray.orchestration.run.builder import Builder
from hard_ray.orchestration.run.plan import Role, RunPlan
from hard_ray.orchestration.stream import Pipeline
from hard_ray.ranks import Ranks
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.summary import summarise

TINY = (
    "data.img_size=16",
    "data.digit_size=12",
    "teacher.model_kwargs={widths: [4, 8]}",
    "student.model_kwargs={widths: [24]}",
    "augmentor.noise_dim=8",
    "augmentor.hidden_dim=8",
    "controller.min_student_steps=3",
    "controller.max_student_steps=5",
    "controller.max_augmentor_steps=2",
    "optim.batch_size=32",
    "optim.lr=0.02",
    "optim.steps=20",
    "validate.every=1",
    "validate.suites=[clean]",
    "checkpoints.every=0.2",
    "tracking.enabled=false",
    "tracking.log_every=1",
    "tracking.gallery_images=0",
    "experiment.controls=[]",
    "runtime.threads=1",
    "runtime.amp_dtype=float32",
    "runtime.channels_last=false",
    "runtime.teacher.threads=1",
    "runtime.teacher.dtype=float32",
)
"""Overrides that make a run of digits take a second."""


def tiny_config(*overrides: str) -> RunConfig:
    """The digits preset, as small as it gets."""
    return load_config(preset="digits", overrides=[*TINY, *overrides])


def plant_secret(monkeypatch: pytest.MonkeyPatch) -> str:
    """A secret that stands where users keep theirs, in the environment."""
    secret = "hunter2" + os.urandom(6).hex()
    for name in ("HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, secret)
    return secret


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


class InProcess(Pipeline):
    """The pipeline without Ray: the same pictures, made in this process."""

    def train_batches(self, first: int) -> Iterator[Batch]:
        pictures = TrainPictures(self.index.reader, self.index.labels, self.config, self.schedule)
        size = self.schedule.local_batch
        while True:
            yield to_batch(pictures(np.arange(first * size, (first + 1) * size)), keep_bad=True)
            first += 1

    def _evaluated(self, name: str, split: str, rows: Rows, batch_size: int) -> Iterator[Batch]:
        pictures = EvalPictures(self.index.reader, self.index.labels, self.config, rows)
        for start in range(0, len(rows), batch_size):
            positions = np.arange(start, min(len(rows), start + batch_size))
            yield to_batch(pictures(positions), keep_bad=False)


class LocalBuilder(Builder):
    """Builds a run of this process; nothing is reported to Ray."""

    def _pipeline(self) -> Pipeline:
        made = super()._pipeline()
        return InProcess(made.index, made.config, made.schedule, DataShare(1, 1e8), 1e6)

    def _report(self, metrics: dict) -> None:
        pass


def untrained_teacher(config: RunConfig, index: ImageIndex) -> FrozenNetwork:
    """A teacher whose weights are a function of the seed alone."""
    torch.manual_seed(0)
    return FrozenNetwork(build_student(config.teacher, image_spec(config.data, index.classes), role="teacher"))


def run_here(
    config: RunConfig,
    folder: Path,
    pool: TeacherPool | None = None,
    *,
    index: ImageIndex | None = None,
    role: Role = "main",
) -> Status:
    """A whole run in this process; `index`: that of the run, if it is another one than its data's."""
    torch.set_num_threads(1)
    index = index or build_index(config.data)
    if pool is None:
        pool = LocalPool(untrained_teacher(config, index))
    folder.mkdir(parents=True, exist_ok=True)
    plan = RunPlan("test", role, config, folder)
    return LocalBuilder(plan, index, Ranks(), torch.device("cpu"), DataShare(1, 1e8), folder / "stop", pool).train()


def finished_run(config: RunConfig, folder: Path) -> RunFolder:
    """A run with its controls, and all that the driver writes to its folder."""
    for control in config.experiment.controls:
        run_here(as_control(config, control), folder / "controls" / control)
    run_here(config, folder)
    made = RunFolder(folder)
    write_text(made.config, dump_yaml(config))
    index = build_index(config.data)
    write_text(made.classes, "".join(f"{name}\n" for name in index.classes))
    write_json(made.summary, summarise(made, config, index))
    return made


def student_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The finished student's tensors."""
    return load_file(folder / "student" / "model.safetensors")


def assert_equal_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Every tensor has the same bits."""
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different, f"{len(different)} of {len(one)} tensors differ, first {different[0]}"


def make_image_folder(root: Path, *, per_class: int = 12, classes: tuple[str, ...] = ("ant", "bee")) -> Path:
    """An image folder `root/{train,val}/class/*.png` whose classes differ in brightness."""
    random = np.random.default_rng(0)
    for split, count in (("train", per_class), ("val", 4)):
        for number, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for image in range(count):
                pixels = random.integers(0, 100, (20, 24, 3)) + 150 * (number % 2)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{image:03d}.png")
    return root


@contextmanager
def patience(seconds: float = 30.0) -> Iterator:
    """Yields a function that is true until the time is over."""
    import time

    end = time.monotonic() + seconds
    yield lambda: time.monotonic() < end


def digits_pipeline(batch_size: int, *overrides: str) -> InProcess:
    """The digits on a field of 16 pixels, in this process."""
    config = tiny_config(*overrides)
    index = build_index(config.data)
    return InProcess(index, config.data, Schedule(index.rows("train"), batch_size, config.seed), DataShare(1, 1e8), 1e6)


class KilledError(BaseException):
    """Stands for the death of the process."""


@contextmanager
def killed_after(updates: int) -> Iterator[None]:
    """The run within the block dies in the update after so many; it fails if the run ends before."""
    update, calls = Updater.update, []

    def dying(self: Updater, *args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) > updates:
            raise KilledError
        return update(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(Updater, "update", dying)
        yield
