"""Pictures of what the augmentor does: original, augmented, difference, and what both networks say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEXT = "#202124"
AGREE, DIFFER = "#1a7f37", "#b3261e"


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a network says of each image."""

    names: tuple[str, ...]
    confidences: tuple[float, ...]

    @classmethod
    def of(cls, logits: Float[Tensor, "batch classes"], classes: Sequence[str]) -> Verdicts:
        """Top class and its probability."""
        confidence, guess = logits.float().softmax(dim=1).max(dim=1)
        return cls(tuple(classes[index] for index in guess.tolist()), tuple(confidence.tolist()))

    def line(self, who: str, column: int) -> str:
        """One line under a picture."""
        name = self.names[column]
        shown = name if len(name) <= 14 else f"{name[:13]}…"
        return f"{who} {shown} {100 * self.confidences[column]:.0f}%"


@dataclass(frozen=True, slots=True)
class Panel:
    """One row of pictures, and what both networks say of them."""

    title: str
    images: NDArray[np.float32]
    """Shape (pictures, channels, height, width), in [0, 1]."""
    teacher: Verdicts
    student: Verdicts


def draw_gallery(path: Path, *, original: Panel, augmented: Panel | None, heading: str) -> None:
    """Write a PNG: a row of originals, of augmented images and of their differences."""
    from matplotlib.figure import Figure

    panels = [original] if augmented is None else [original, augmented]
    count = len(original.images)
    rows = len(panels) + (augmented is not None)
    figure = Figure(figsize=(1.45 * count + 0.9, 1.85 * rows + 0.5), dpi=110, layout="constrained")
    figure.suptitle(heading, fontsize=10, color=TEXT)
    axes = figure.subplots(rows, count, squeeze=False)
    for row, panel in zip(axes, panels, strict=False):
        for column, axis in enumerate(row):
            _show(axis, panel.images[column])
            agree = panel.teacher.names[column] == panel.student.names[column]
            verdict = f"{panel.teacher.line('T', column)}\n{panel.student.line('S', column)}"
            axis.set_xlabel(verdict, fontsize=7, color=AGREE if agree else DIFFER)
        row[0].set_ylabel(panel.title, fontsize=9, color=TEXT)
    if augmented is not None:
        for column, axis in enumerate(axes[-1]):
            difference = augmented.images[column] - original.images[column]
            axis.imshow(difference.mean(axis=0), cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
            _bare(axis)
        axes[-1][0].set_ylabel("difference", fontsize=9, color=TEXT)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="png")
    temporary.replace(path)


def _show(axis: Axes, image: NDArray[np.float32]) -> None:
    pixels = np.clip(image.transpose(1, 2, 0), 0.0, 1.0)
    grey = pixels.shape[2] == 1
    axis.imshow(
        pixels[..., 0] if grey else pixels, cmap="gray" if grey else None, vmin=0, vmax=1, interpolation="nearest"
    )
    _bare(axis)


def _bare(axis: Axes) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_color("#dadce0")


def to_pixels(images: Tensor) -> NDArray[np.float32]:
    """Images on the host."""
    pixels: NDArray[np.float32] = images.detach().float().cpu().numpy()
    return pixels
