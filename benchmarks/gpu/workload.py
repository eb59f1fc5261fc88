"""The work of every measure: pairs of networks, and JPEGs of random pixels, which are decoded once."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hard_ray.config.loader import load_config
from hard_ray.config.run import RunConfig
from hard_ray.config.runtime import CompileMode, Dtype
from hard_ray.data.batch import Batch
from hard_ray.networks.network import ImageSpec

Method = Literal["KD", "CutMix", "HARD"]
METHODS: Mapping[Method, tuple[str, str]] = {
    "KD": ("kd", "identity"),
    "CutMix": ("kd", "cutmix"),
    "HARD": ("hard", "affine"),
}
"""Objective and augmentor of each method."""

Compile = bool | CompileMode
"""How torch.compile makes the kernels of both networks; False: not at all."""

STUDENT_STEPS = 5
"""Updates of the student between two of the augmentor."""
FOLDER_CLASSES = 10


@dataclass(frozen=True, slots=True)
class Pair:
    """A teacher and its student, by timm's names."""

    title: str
    teacher: str
    student: str
    optimiser: Literal["sgd", "adamw"]


PAIRS = (
    Pair("ResNet-50 -> ResNet-18", "resnet50", "resnet18", "sgd"),
    Pair("ViT-B -> ViT-S", "vit_base_patch16_224", "vit_small_patch16_224", "adamw"),
)
TINY_PAIRS = (
    Pair("test_resnet -> test_resnet", "test_resnet", "test_resnet", "sgd"),
    Pair("test_vit -> test_vit", "test_vit", "test_vit", "adamw"),
)
"""Networks of less than a million weights: every part of the measurement runs, its figures say nothing."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The size of the work, and where it is done."""

    device: Literal["cuda", "cpu"]
    size: int
    """Side of the images, in pixels."""
    batch: int
    """Images per update."""
    dtype: Dtype
    tiny: bool
    folder: Path
    """Holds the images."""
    classes: int = 1000

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The networks."""
        return TINY_PAIRS if self.tiny else PAIRS

    @property
    def spec(self) -> ImageSpec:
        """The images, as networks need to know them."""
        return ImageSpec(self.size, 3, tuple(f"class {number:03d}" for number in range(self.classes)))

    @property
    def jpegs(self) -> Path:
        """A folder in the layout of ImageNet: `{train,val}/class/*.jpg`."""
        return self.folder / "jpegs"

    def config(self, pair: Pair, method: Method, *overrides: str, how: Compile = False) -> RunConfig:
        """A run of hardray that does this work."""
        objective, augmentor = METHODS[method]
        given = {
            "data.kind": "image_folder",
            "data.path": self.jpegs,
            "data.img_size": self.size,
            "teacher.model": pair.teacher,
            "teacher.img_size": self.size,
            "student.model": pair.student,
            "student.img_size": self.size,
            "objective.kind": objective,
            "augmentor.kind": augmentor,
            "controller.policy": "fixed",
            "controller.student_steps": STUDENT_STEPS,
            "optim.opt": pair.optimiser,
            "optim.lr": 0.01 if pair.optimiser == "sgd" else 0.0001,
            "optim.batch_size": self.batch,
            "optim.steps": 1_000_000,
            "runtime.amp_dtype": self.dtype,
            "runtime.channels_last": str(self.dtype == "bfloat16").lower(),
            "runtime.teacher.dtype": self.dtype,
            "runtime.compile": str(how).lower(),
            "runtime.teacher.compile": str(how).lower(),
        }
        return load_config(overrides=[*(f"{key}={value}" for key, value in given.items()), *overrides])

    def batches(self) -> list[Batch]:
        """The decoded batches, with labels at random."""
        pixels: NDArray[np.uint8] = np.load(self.folder / "pixels.npy")
        random = np.random.default_rng(1)
        made = []
        for number, images in enumerate(pixels):
            ids = np.arange(number * self.batch, (number + 1) * self.batch)
            labels = random.integers(0, self.classes, self.batch)
            made.append(Batch(images, labels, ids, np.zeros(self.batch, dtype=np.int64)))
        return made


def make_images(work: Workload, batches: int) -> float:
    """Write the JPEGs and the batches of their views; return decoded images per second of all cores."""
    random = np.random.default_rng(0)
    names = []
    for number in range(batches * work.batch + FOLDER_CLASSES):
        split = "train" if number < batches * work.batch else "val"
        name = work.jpegs / split / f"class {number % FOLDER_CLASSES:03d}" / f"{number:05d}.jpg"
        name.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (16, 16, 3)).astype(np.uint8))
        side = work.size * 8 // 7  # 256 pixels for views of 224
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(name, quality=90)
        names += [name] if split == "train" else []
    began = time.perf_counter()
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:  # Pillow decodes without the interpreter's lock
        views = list(threads.map(view_of, names, [work.size] * len(names)))
    seconds = time.perf_counter() - began
    np.save(work.folder / "pixels.npy", np.stack(views).reshape(batches, work.batch, 3, work.size, work.size))
    return len(names) / seconds


def view_of(name: Path, size: int) -> NDArray[np.uint8]:
    """Decode a JPEG and resize a crop of it, shape (3, size, size): as much work as a training view of ImageNet."""
    with Image.open(name) as image:
        side = image.width
        box = (side // 8, side // 16, side, side * 15 // 16)
        view = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.ascontiguousarray(np.asarray(view, dtype=np.uint8).transpose(2, 0, 1))
