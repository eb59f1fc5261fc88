"""Predictions of a saved model for image files, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hard_ray.data.account import Tally
from hard_ray.data.listing import HARMLESS, each_once, list_images
from hard_ray.data.readers import read_file
from hard_ray.data.views import UnreadableImageError, decode
from hard_ray.export.saved_model import SavedModel
from hard_ray.networks.precision import Precision


@dataclass(frozen=True, slots=True)
class Guess:
    """A class and its probability."""

    name: str
    """The class; if it has no name, its number."""
    output: int
    """The index of the output, from 0."""
    probability: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The most probable classes of one image."""

    image: Path
    top: tuple[Guess, ...]
    """The most probable class first; empty: the image cannot be read."""
    problem: str | None = None
    """Why the image cannot be read; None: it can."""


def predictions(saved: SavedModel, images: Sequence[Path], *, top: int, batch_size: int) -> Iterator[Prediction]:
    """Classify files, and every image below folders, in their order; each gets its `top` classes."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    saved.network.to(device)
    files = [found for given in images for found in _files(given)]
    for start in range(0, len(files), batch_size):
        batch = files[start : start + batch_size]
        views = [problem or _view(saved, path) for path, problem in batch]
        good = [view for view in views if not isinstance(view, str)]
        answers = iter(probabilities(saved, np.stack(good), Precision(device)) if good else ())
        for (path, _), view in zip(batch, views, strict=True):
            if isinstance(view, str):
                yield Prediction(path, (), view)
            else:
                yield Prediction(path, _most_probable(saved, next(answers), top))


def probabilities(saved: SavedModel, pixels: NDArray[np.uint8], precision: Precision) -> Tensor:
    """Class probabilities of evaluation views, shape (batch, classes)."""
    with torch.inference_mode():
        logits: Tensor = saved.network(precision.images(pixels))
    return logits.softmax(dim=1).cpu()


def _files(path: Path) -> list[tuple[Path, str]]:
    """A file, or the images below a folder as training lists them, each with the reason why it is not read, if any.

    Of images that are left out for one reason, as all that are HEIC, the first stands for all.
    """
    path = path.expanduser()
    if not path.is_dir():
        return [(path, "")]
    tally = Tally()
    images = each_once(list_images(str(path), tally), lambda _: "one folder", tally)
    found = [(Path(image.path), "") for image in images]
    for reason, entry in tally.left_out.items():
        if reason not in HARMLESS:
            others = f" ({entry.count - 1:,} more)" if entry.count > 1 else ""
            found.append((Path(entry.example), f"{reason}{others}"))
    return sorted(found) or [(path, "the folder holds no image")]


def _view(saved: SavedModel, path: Path) -> NDArray[np.uint8] | str:
    """The evaluation view of a file, or the reason why it cannot be read."""
    picture = read_file(path)
    try:
        if isinstance(picture, OSError):
            raise picture
        return saved.view(decode(picture, in_chans=saved.images.in_chans))
    except (UnreadableImageError, OSError) as error:
        return getattr(error, "strerror", None) or str(error)


def _most_probable(saved: SavedModel, row: Tensor, count: int) -> tuple[Guess, ...]:
    values, outputs = row.topk(min(count, len(row)))
    return tuple(
        Guess(saved.images.classes[output], output, value)
        for value, output in zip(values.tolist(), outputs.tolist(), strict=True)
    )
