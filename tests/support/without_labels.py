"""A teacher on disk, a heap of images without labels, and configurations of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hard_ray.config.loader import load_config
from hard_ray.config.networks import StudentConfig
from hard_ray.config.run import RunConfig, as_control
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool
from hard_ray.export.timm_folder import EvalView, write_timm_folder
from hard_ray.files import write_json, write_text
from hard_ray.networks.network import ImageSpec, build_student, build_teacher, image_spec
from hard_ray.preparation.answers import answered_index
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.summary import summarise
from tests.support.helpers import TINY, run_here

ANSWERS = ("left", "right", "neither")


def saved_teacher(folder: Path, *, answers: tuple[str, ...] = ANSWERS, named: bool = True) -> Path:
    """A network of random weights in timm's layout, for grey images of 16 pixels."""
    images = ImageSpec(16, 1, answers)
    torch.manual_seed(0)
    config = StudentConfig(model="hardray_cnn", model_kwargs={"widths": [4, 8]})
    network = build_student(config, images, role="teacher")
    names = answers if named else None
    write_timm_folder(network, folder, images=images, names=names, view=EvalView(), card="A network of random weights.")
    return folder


def heap(root: Path, *, count: int = 60, folders: tuple[str, ...] = ("cat", "deep/er/dog")) -> Path:
    """Images of a bright square at a random place, in folders whose names say nothing."""
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 60, (16, 16), dtype=np.uint8)
        top, left = random.integers(0, 10, 2)
        pixels[top : top + 6, left : left + 6] = 230
        folder = root / folders[number % len(folders)]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return root


VIEW = ("data.img_size=16", "data.in_chans=1", "data.crop=none", "data.hflip=0", "data.crop_pct=1.0")


def config_of(images: Path, teacher: Path, *overrides: str) -> RunConfig:
    """A run on a heap, as small as it gets."""
    left_out = (
        ("data.", "teacher.", "augmentor.") if any("augmentor" in text for text in overrides) else ("data.", "teacher.")
    )
    tiny = [text for text in TINY if not text.startswith(left_out)]
    given = [f"data.path={images}", *VIEW, f"teacher.model=local-dir:{teacher}"]
    first = [] if any(text.startswith("data.kind") for text in overrides) else ["data.kind=images"]
    return load_config(preset="digits", overrides=[*tiny, *first, *given, *overrides])


def finished_without_labels(config: RunConfig, folder: Path) -> RunFolder:
    """A run on a heap with its controls, and all that the driver writes to its folder."""
    index = answered_index(config.data, config.teacher)
    pool = LocalPool(FrozenNetwork(build_teacher(config.teacher, image_spec(config.data, index.classes))))
    for control in config.experiment.controls:
        run_here(as_control(config, control), folder / "controls" / control, pool, index=index)
    run_here(config, folder, pool, index=index)
    made = RunFolder(folder)
    write_text(made.config, dump_yaml(config))
    write_text(made.classes, "".join(f"{name}\n" for name in index.classes))
    write_json(made.summary, summarise(made, config, index))
    return made
