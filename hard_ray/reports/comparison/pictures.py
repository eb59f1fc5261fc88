"""The same images as each compared run's augmentor changes them, one run above the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from hard_ray.errors import RunFolderError
from hard_ray.reports.comparison.groups import Comparison
from hard_ray.reports.figures import INK, new_figure
from hard_ray.reports.gallery import draw_row, shortened, titles_of
from hard_ray.runs.snapshots import Snapshot, read_snapshot, snapshot_paths

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_RUNS = 12
MOST_IMAGES = 8


@dataclass(slots=True)
class SamePictures:
    """The newest snapshots of runs that show the same images."""

    shown: dict[str, Snapshot] = field(default_factory=dict)
    """By run."""
    classes: tuple[str, ...] = ()
    left_out: list[str] = field(default_factory=list)
    """A sentence for each run that is not shown."""


def same_pictures(comparison: Comparison) -> SamePictures:
    """Read the newest snapshot of each run that has one; the first decides which images are shown."""
    found = SamePictures()
    for run in comparison.runs:
        paths = snapshot_paths(run.record.folder)
        if not paths:
            continue
        try:
            snapshot = read_snapshot(paths[-1])
        except RunFolderError as error:
            found.left_out.append(f"{run.name} is not shown: {error}.")
            continue
        first = next(iter(found.shown.values()), None)
        if first is not None and not _show_the_same(first, snapshot):
            found.left_out.append(f"{run.name} is not shown: its pictures are of other images than those of the first.")
        elif len(found.shown) == MOST_RUNS:
            found.left_out.append(f"{run.name} is not shown: at most {MOST_RUNS} runs are.")
        else:
            found.shown[run.name] = snapshot
            found.classes = found.classes or run.record.classes
    return found


def _show_the_same(one: Snapshot, other: Snapshot) -> bool:
    count = min(len(one.labels), len(other.labels), MOST_IMAGES)
    return count > 0 and np.array_equal(one.original.images[:count], other.original.images[:count])


def draw_pictures(found: SamePictures) -> Figure:
    """Draw the originals, and below them a row for each run with its augmented images and both networks' answers."""
    snapshots = found.shown
    first = next(iter(snapshots.values()))
    count = min(MOST_IMAGES, *(len(snapshot.labels) for snapshot in snapshots.values()))
    figure = new_figure(1.45 * count + 0.9, 1.95 * (len(snapshots) + 1))
    axes = figure.subplots(len(snapshots) + 1, count, squeeze=False)
    original = first.original.first(count)
    for axis, title in zip(axes[0], titles_of(first.labels[:count], original.teacher, found.classes), strict=True):
        axis.set_title(title, fontsize=9, color=INK, parse_math=False)
    draw_row(axes[0], "original", original, found.classes, said=False)
    for line, (name, snapshot) in zip(axes[1:], snapshots.items(), strict=True):
        title = f"{shortened(name.rpartition('/')[2])}\nupdate {snapshot.step:,}"
        draw_row(line, title, snapshot.augmented.first(count), found.classes)
    return figure
