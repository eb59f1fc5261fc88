"""Pictures of images before and after a change, and the networks' predictions for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hard_ray.reports.figures import COLOURS, INK, LINE, new_figure
from hard_ray.runs.snapshots import Guesses, Snapshot, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AGREE, DIFFER = COLOURS["agree"], COLOURS["differ"]
LONGEST_NAME = 14


@dataclass(frozen=True, slots=True)
class Verdicts:
    """A network's prediction for each image."""

    names: tuple[str, ...]
    confidences: tuple[float, ...]

    @classmethod
    def of(cls, guesses: Guesses, classes: Sequence[str]) -> Verdicts:
        """Name the classes of guesses."""
        return cls(names_of(guesses.classes, classes), tuple(guesses.confidences.tolist()))

    def line(self, who: str, column: int) -> str:
        """One line under a picture."""
        return f"{who} {shortened(self.names[column])} {100 * self.confidences[column]:.0f}%"


def draw_gallery(snapshot: Snapshot, classes: Sequence[str]) -> Figure:
    """Draw a snapshot as three rows: originals, augmented images, their differences."""
    original, augmented = snapshot.original, snapshot.augmented
    count = len(snapshot.labels)
    figure = new_figure(1.45 * count + 0.9, 6.25)
    figure.suptitle(f"update {snapshot.step:,}{_untitled(snapshot)}", fontsize=10, color=INK)
    axes = figure.subplots(3, count, squeeze=False)
    for axis, title in zip(axes[0], titles_of(snapshot.labels, original.teacher, classes), strict=True):
        axis.set_title(title, fontsize=9, color=INK, parse_math=False)
    draw_row(axes[0], "original", original, classes)
    draw_row(axes[1], "augmented", augmented, classes)
    _draw_differences(axes[2], original.images, augmented.images)
    return figure


def _draw_differences(
    axes: Sequence[Axes], before: NDArray[np.uint8], after: NDArray[np.uint8], *, largest: float = 1.0
) -> None:
    for axis, difference in zip(axes, (after / 255.0 - before / 255.0).mean(axis=1), strict=True):
        axis.imshow(difference, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
        _bare(axis)
    axes[0].set_ylabel("difference", fontsize=9, color=INK)


def draw_row(axes: Sequence[Axes], title: str, view: View, classes: Sequence[str], *, said: bool = True) -> None:
    """Draw images in a row of axes, with both networks' predictions below them unless `said` is False."""
    texts, colours = _verdicts(view, classes)
    for column, axis in enumerate(axes):
        _show(axis, view.images[column])
        if said:
            axis.set_xlabel(texts[column], fontsize=8, color=colours[column], parse_math=False)
    axes[0].set_ylabel(title, fontsize=9, color=INK, parse_math=False)


def _verdicts(view: View, classes: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands under each picture, and its colour: both predictions, or the cosine of both embeddings."""
    if view.cosine is not None:
        return [_cosine(value) for value in view.cosine], [INK] * len(view.cosine)
    assert view.teacher is not None
    assert view.student is not None
    teacher, student = Verdicts.of(view.teacher, classes), Verdicts.of(view.student, classes)
    columns = range(len(view.images))
    texts = [f"{teacher.line('T', column)}\n{student.line('S', column)}" for column in columns]
    return texts, [AGREE if teacher.names[column] == student.names[column] else DIFFER for column in columns]


def _cosine(value: float) -> str:
    return f"cosine {value:.3f}"


def draw_strip(snapshots: Sequence[Snapshot], classes: Sequence[str]) -> Figure:
    """Draw the same images through training: a row for each image, a column for each snapshot."""
    first = snapshots[0]
    figure = new_figure(1.1 * (len(snapshots) + 1) + 0.6, 1.4 * len(first.labels) + 0.4)
    axes = figure.subplots(len(first.labels), len(snapshots) + 1, squeeze=False)
    for row, title in enumerate(titles_of(first.labels, first.original.teacher, classes)):
        _show(axes[row][0], first.original.images[row])
        axes[row][0].set_ylabel(title, fontsize=9, color=INK, parse_math=False)
    for column, snapshot in enumerate(snapshots, start=1):
        for axis, image in zip(axes[:, column], snapshot.augmented.images, strict=True):
            _show(axis, image)
        _say(axes[:, column], snapshot.augmented, classes)
    titles = ["original", *(f"update {snapshot.step:,}" for snapshot in snapshots)]
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9, color=INK)
    return figure


def draw_reconstructions(originals: NDArray[np.uint8], reconstructions: NDArray[np.uint8], *, heading: str) -> Figure:
    """Draw a row of originals above a row of an autoencoder's reconstructions."""
    figure = new_figure(1.45 * len(originals) + 0.9, 3.6)
    figure.suptitle(heading, fontsize=10, color=INK)
    rows = figure.subplots(2, len(originals), squeeze=False)
    for row, title, images in zip(rows, ("original", "reconstruction"), (originals, reconstructions), strict=True):
        for axis, image in zip(row, images, strict=True):
            _show(axis, image)
        row[0].set_ylabel(title, fontsize=9, color=INK)
    return figure


def draw_generated(
    rows: Mapping[str, tuple[NDArray[np.uint8], Guesses]],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    *,
    heading: str,
) -> Figure:
    """Draw a row for each stage of generated images with the teacher's predictions, and the last stage's change.

    Predictions are compared with the label; of an image without one, with the prediction at the first stage.
    """
    figure = new_figure(1.45 * len(labels) + 0.9, 1.75 * (len(rows) + 1) + 0.4)
    figure.suptitle(heading, fontsize=10, color=INK)
    axes = figure.subplots(len(rows) + 1, len(labels), squeeze=False)
    _, before_all = next(iter(rows.values()))
    named = names_of(np.where(labels < 0, before_all.classes, labels), classes)
    for axis, title in zip(axes[0], titles_of(labels, before_all, classes), strict=True):
        axis.set_title(title, fontsize=9, color=INK, parse_math=False)
    for line, (title, (images, guesses)) in zip(axes, rows.items(), strict=False):
        said = Verdicts.of(guesses, classes)
        for column, axis in enumerate(line):
            _show(axis, images[column])
            colour = AGREE if said.names[column] == named[column] else DIFFER
            axis.set_xlabel(said.line("T", column), fontsize=8, color=colour, parse_math=False)
        line[0].set_ylabel(title, fontsize=9, color=INK)
    *_, (before, _), (after, _) = rows.values()
    largest = max(float(np.abs(after / 255.0 - before / 255.0).mean(axis=1).max()), 1 / 255)
    _draw_differences(axes[-1], before, after, largest=largest)
    axes[-1][0].set_ylabel(f"difference, ±{largest:.2f}", fontsize=9, color=INK)
    return figure


def _say(axes: Iterable[Axes], view: View, classes: Sequence[str]) -> None:
    if view.cosine is not None:
        for axis, value in zip(axes, view.cosine, strict=True):
            axis.set_xlabel(_cosine(value), fontsize=7.5, color=INK)
        return
    assert view.teacher is not None
    assert view.student is not None
    teacher, student = (names_of(guesses.classes, classes) for guesses in (view.teacher, view.student))
    for axis, right, said in zip(axes, teacher, student, strict=True):
        text = f"T {shortened(right)}\nS {shortened(said)}"
        axis.set_xlabel(text, fontsize=7.5, color=AGREE if right == said else DIFFER, parse_math=False)


def titles_of(labels: NDArray[np.int64], teacher: Guesses | None, classes: Sequence[str]) -> list[str]:
    """What stands above images: their labels or, where an image has none, the teacher's prediction, marked `T`.

    A teacher without classes predicts none, so that nothing stands above an image without a label.
    """
    if teacher is None:
        named = names_of(labels.clip(min=0), classes)
        return [shortened(name) if label >= 0 else "" for name, label in zip(named, labels, strict=True)]
    named = names_of(np.where(labels < 0, teacher.classes, labels), classes)
    return [f"T {shortened(name)}" if label < 0 else shortened(name) for name, label in zip(named, labels, strict=True)]


def _untitled(snapshot: Snapshot) -> str:
    """What the titles of images without labels are."""
    if snapshot.original.teacher is None or (snapshot.labels >= 0).all():
        return ""
    return ", titles with T: the teacher's prediction, as the image has no label"


def names_of(numbers: NDArray[np.int64], classes: Sequence[str]) -> tuple[str, ...]:
    """Names of classes; a class without a name gets its number."""
    return tuple(classes[number] if number < len(classes) else str(number) for number in numbers.tolist())


def shortened(name: str) -> str:
    """A class name, cut to fit under a picture."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _show(axis: Axes, image: NDArray[np.uint8]) -> None:
    pixels = image.transpose(1, 2, 0)
    grey = pixels.shape[2] == 1
    axis.imshow(
        pixels[..., 0] if grey else pixels, cmap="gray" if grey else None, vmin=0, vmax=255, interpolation="nearest"
    )
    _bare(axis)


def _bare(axis: Axes) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_color(LINE)
