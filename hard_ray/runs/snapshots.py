"""Snapshots of the augmentor: at each the same images, both networks' predictions, and drawn parameter values.

A snapshot is `gallery/step-XXXXXXXX.npz` beside the picture of that update: arrays alone, no pickles. `original` and
`augmented` are uint8 images of shape (pictures, channels, height, width); `teacher/original/class` and `/confidence`
are the top class and its probability, likewise for the student and the augmented row; of networks without classes there
is `cosine/original` instead, the similarity of both embeddings, likewise `cosine/augmented`. `samples/NAME` are values
that the augmentor drew and `bounds/NAME` their range.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray

from hard_ray.config.run import RunConfig
from hard_ray.errors import RunFolderError
from hard_ray.files import read_npz, write_bytes
from hard_ray.runs.folder import RunFolder

PATTERN = "step-*.npz"


@dataclass(frozen=True, slots=True)
class Guesses:
    """A network's top class for each image, and its probability."""

    classes: Int[NDArray[np.int64], " pictures"]
    confidences: Float[NDArray[np.float32], " pictures"]

    @classmethod
    def of(cls, logits: Float[NDArray[np.float32], "pictures classes"]) -> Guesses:
        """The top classes of logits, with their softmax probabilities."""
        odds = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        confidences = (odds.max(axis=1) / odds.sum(axis=1)).astype(np.float32)
        return cls(logits.argmax(axis=1).astype(np.int64), confidences)

    def first(self, count: int) -> Guesses:
        """Those for the first `count` images."""
        return Guesses(self.classes[:count], self.confidences[:count])


@dataclass(frozen=True, slots=True)
class View:
    """A row of pictures, and both networks' predictions or, without classes, the similarity of their embeddings."""

    images: UInt8[NDArray[np.uint8], "pictures channels height width"]
    teacher: Guesses | None = None
    student: Guesses | None = None
    cosine: Float[NDArray[np.float32], " pictures"] | None = None
    """Cosine of the embeddings of teacher and student."""

    def first(self, count: int) -> View:
        """The first `count` pictures."""
        teacher, student = (None if found is None else found.first(count) for found in (self.teacher, self.student))
        return View(self.images[:count], teacher, student, None if self.cosine is None else self.cosine[:count])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The augmentor at one update."""

    step: int
    """Updates made so far."""
    labels: Int[NDArray[np.int64], " pictures"]
    original: View
    augmented: View
    samples: Mapping[str, NDArray[np.float32]]
    """Drawn values by name, several hundred each."""
    bounds: Mapping[str, tuple[float, float]]
    """The range of each name in `samples`."""


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write a snapshot atomically: a reader finds the whole file or none."""
    arrays: dict[str, Any] = {"step": np.int64(snapshot.step), "labels": snapshot.labels}
    for row, view in (("original", snapshot.original), ("augmented", snapshot.augmented)):
        arrays[row] = view.images
        for network, guesses in (("teacher", view.teacher), ("student", view.student)):
            if guesses is not None:
                arrays[f"{network}/{row}/class"] = guesses.classes
                arrays[f"{network}/{row}/confidence"] = guesses.confidences
        if view.cosine is not None:
            arrays[f"cosine/{row}"] = view.cosine
    arrays |= {f"samples/{name}": np.asarray(values, np.float32) for name, values in snapshot.samples.items()}
    arrays |= {f"bounds/{name}": np.array(bounds, np.float64) for name, bounds in snapshot.bounds.items()}
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, stream.getvalue())


def read_snapshot(path: Path) -> Snapshot:
    """Read a file of `write_snapshot`; RunFolderError: it is damaged, or no snapshot."""
    try:
        return _snapshot(read_npz(path))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunFolderError(f"{path} is not a readable snapshot ({error}); remove it to do without it") from None


def _snapshot(arrays: Mapping[str, NDArray[Any]]) -> Snapshot:
    views = {row: _view(row, arrays) for row in ("original", "augmented")}
    bounds = {name: (float(low), float(high)) for name, (low, high) in _below("bounds/", arrays).items()}
    return Snapshot(int(arrays["step"]), arrays["labels"], **views, samples=_below("samples/", arrays), bounds=bounds)


def _view(row: str, arrays: Mapping[str, NDArray[Any]]) -> View:
    if f"cosine/{row}" in arrays:
        return View(arrays[row], cosine=arrays[f"cosine/{row}"])
    teacher, student = (
        Guesses(arrays[f"{network}/{row}/class"], arrays[f"{network}/{row}/confidence"])
        for network in ("teacher", "student")
    )
    return View(arrays[row], teacher, student)


def _below(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def snapshot_paths(folder: RunFolder) -> list[Path]:
    """A run's snapshots, oldest first."""
    return sorted(folder.gallery.glob(PATTERN))


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """At most `count` of the paths: the first, the last, and evenly spaced ones between them."""
    chosen = np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)
    return [paths[place] for place in chosen]


def why_none(config: RunConfig) -> str:
    """The reason why a run of this configuration has no snapshots."""
    if config.augmentor.kind == "identity":
        return "augmentor.kind is identity, so there is no augmented image to show"
    if config.tracking.gallery_images == 0:
        return "tracking.gallery_images is 0, so the run keeps no pictures"
    return "it has no gallery/step-*.npz yet: the first is written when training begins"
