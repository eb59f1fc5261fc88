"""Plain knowledge distillation: one process, torch's DataLoader, both networks.

Networks, views, loss, optimiser and precision are those of the hardray run that it is compared with.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.work import BATCH, SPEC, STUDENT, TEACHER, precision
from hard_ray.config.data import DataConfig
from hard_ray.config.loader import load_config
from hard_ray.config.networks import StudentConfig
from hard_ray.data.index import ImageIndex, SplitName
from hard_ray.data.sources.build import build_index
from hard_ray.data.views import DRAWS_PER_IMAGE, decode, eval_view, train_view
from hard_ray.maths import losses
from hard_ray.networks.network import build_student


class Views(Dataset[tuple[Tensor, int]]):
    """A torch Dataset of views, made one by one with hardray's decoding and cropping."""

    def __init__(self, index: ImageIndex, config: DataConfig, rows: NDArray[np.int64], *, train: bool) -> None:
        """Make one view per row of `rows`."""
        self.index, self.config, self.rows, self.train = index, config, rows, train

    def __len__(self) -> int:
        """Number of views."""
        return len(self.rows)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        """A view, uint8, and its label."""
        row = int(self.rows[position])
        image = decode(self.index.reader.read([row])[0], in_chans=self.config.in_chans)
        if self.train:
            view = train_view(image, self.config, np.random.default_rng(row).random(DRAWS_PER_IMAGE))
        else:
            view = eval_view(image, self.config)
        return torch.from_numpy(view), int(self.index.labels[row])


def train_views(data: Path, length: int, *overrides: str) -> Views:
    """The given number of training views, in random order."""
    config = load_config(preset="cifar10", overrides=[f"data.path={data}", *overrides])
    index = build_index(config.data)
    rows = index.rows("train")
    order = np.concatenate([np.random.default_rng(0).permutation(rows) for _ in range(-(-length // len(rows)))])
    return Views(index, config.data, order[:length], train=True)


def eval_views(data: Path, split: SplitName) -> Views:
    """The evaluation views of a split."""
    config = load_config(preset="cifar10", overrides=[f"data.path={data}"])
    index = build_index(config.data)
    return Views(index, config.data, index.rows(split), train=False)


def loader(views: Views, workers: int, batch: int = BATCH) -> Iterator[tuple[Tensor, Tensor]]:
    """The views in order, in batches."""
    return iter(DataLoader(views, batch_size=batch, num_workers=workers, prefetch_factor=4 if workers else None))


def main() -> None:
    """Train, and print images per second from the update `--from` on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--from", type=int, required=True, dest="first")
    parser.add_argument("--workers", type=int, default=0)
    given = parser.parse_args()
    torch.manual_seed(0)
    fast = precision()
    teacher, student = (build_student(StudentConfig(model=name), SPEC) for name in (TEACHER, STUDENT))
    teacher = teacher.to(memory_format=fast.memory_format).eval()
    student = student.to(memory_format=fast.memory_format).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    began = 0.0
    for step, (pixels, _) in enumerate(loader(train_views(given.data, given.steps * BATCH), given.workers)):
        if step == given.first:
            began = time.perf_counter()
        images = (pixels.float() / 255.0).to(memory_format=fast.memory_format)
        with fast.autocast():
            with torch.no_grad():
                target = teacher(images)
            logits = student(images)
        loss = losses.divergence(target.float(), logits.float(), temperature=4.0).mean() * 16.0
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    seconds = time.perf_counter() - began
    print(json.dumps({"images_per_s": (given.steps - given.first) * BATCH / seconds}))


if __name__ == "__main__":
    main()
