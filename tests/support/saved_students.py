"""Runs with a student of random weights, as their folders would be, without a training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hard_ray.config.loader import load_config
from hard_ray.config.networks import StudentConfig
from hard_ray.config.run import RunConfig
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.data.sources.build import build_index
from hard_ray.data.views import decode, eval_view
from hard_ray.export.timm_folder import TrainingFacts, export_network, timm_view
from hard_ray.files import write_json
from hard_ray.networks.network import ImageSpec, Network, build_student
from hard_ray.runs.folder import RunFolder

TEACHER = {
    "clean": {"top1": 98.76, "ece": 1.23, "n": 300, "loss": 0.1},
    "shifted": {"top1": 91.4, "ece": 2.5, "n": 2400, "loss": 0.2},
}
STUDENT = {
    "clean": {"top1": 93.21, "ece": 4.56, "n": 300, "loss": 0.3, "agreement": 94.32},
    "shifted": {"top1": 61.05, "ece": 7.89, "n": 2400, "loss": 0.9, "agreement": 62.5},
}


def random_network(config: StudentConfig, images: ImageSpec, seed: int = 0) -> Network:
    """A network of random weights, with BatchNorm averages of its own."""
    torch.manual_seed(seed)
    network = build_student(config, images)
    for _ in range(3):
        network.train()(torch.rand(16, images.in_chans, images.img_size, images.img_size))
    return network.eval()


def fit(network: Network, config: RunConfig, steps: int) -> Network:
    """Learn the training split, so that answers are not all alike."""
    index = build_index(config.data)
    images, labels = real_views(config, len(index.rows("train")), "train"), index.labels[index.rows("train")]
    optimizer = torch.optim.Adam(network.train().parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), torch.from_numpy(labels)).backward()
        optimizer.step()
    return network.eval()


def saved_run(
    path: Path, config: RunConfig, *, is_finished: bool = True, has_best: bool = True, steps: int = 0
) -> Network:
    """A run's folder in `path`; gives the student that is in it, which learned for some steps."""
    index, folder = build_index(config.data), RunFolder(path)
    images = ImageSpec(config.data.img_size, config.data.in_chans, index.classes)
    count, view = len(index.rows("train")), timm_view(config.data)
    facts = TrainingFacts(f"data.kind {config.data.kind}", count, "hardray_cnn", "hard", "affine", 20, view)
    path.mkdir(parents=True)
    folder.config.write_text(dump_yaml(config))
    points = [{"kind": "val", "step": step, "time": 0.0, "val/top1": top1} for step, top1 in ((10, 90.5), (20, 90.25))]
    folder.metrics.write_text("".join(json.dumps(point) + "\n" for point in points))
    network = fit(random_network(config.student, images), config, steps)
    if has_best:
        export_network(random_network(config.student, images, seed=1), folder.best, images=images, facts=facts)
    if is_finished:
        export_network(network, folder.student, images=images, facts=facts)
        write_json(folder.evaluation, {"split": index.final_split, "suites": STUDENT, "teacher": TEACHER})
        steps = {"student": 4321, "augmentor": 1234}
        outcome = {"status": "finished", "steps": steps, "teacher_identity": "0123456789abcdef" * 4}
        write_json(folder.outcome, outcome)
        write_json(folder.summary, {"versions": {"torch": "2.14.1"}})
    return network


def number_folder(root: Path, *, per_class: int = 3, size: tuple[int, int] = (32, 32)) -> Path:
    """An image folder of scikit-learn's digits in colour: eleven classes whose names sort otherwise as numbers."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for label in range(11):
        rows = np.flatnonzero(digits.target == label % 10)[-3 * per_class :]
        for number, row in enumerate(rows):
            folder = root / ("train" if number < 2 * per_class else "test") / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            grey = np.rint(digits.images[row] * (255 / 16)).astype(np.uint8)
            colour = np.stack([grey, 255 - grey, np.roll(grey, label)], axis=2)
            Image.fromarray(colour).resize(size, Image.Resampling.BILINEAR).save(folder / f"{number:02d}.png")
    return root


def number_config(root: Path, *overrides: str) -> RunConfig:
    """A run on such a folder."""
    given = ["data.kind=image_folder", f"data.path={root}", "data.img_size=32", "data.crop=none", "data.crop_pct=1.0"]
    return load_config(overrides=[*given, "tracking.enabled=false", *overrides])


def real_views(config: RunConfig, count: int, split: str = "test") -> torch.Tensor:
    """Evaluation views of a split, in [0, 1]."""
    index = build_index(config.data)
    pictures = index.reader.read(index.rows(split)[:count].tolist())
    views = [eval_view(decode(picture, in_chans=config.data.in_chans), config.data) for picture in pictures]
    return torch.from_numpy(np.stack(views)).float() / 255.0
