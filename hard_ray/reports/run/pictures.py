"""Pictures of a run, drawn from its snapshots without models or data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hard_ray.errors import RunFolderError
from hard_ray.reports.figures import save_png
from hard_ray.reports.gallery import draw_gallery, draw_strip
from hard_ray.reports.run.distribution import draw_distribution
from hard_ray.runs.record import RunRecord, read_record
from hard_ray.runs.snapshots import Snapshot, read_snapshot, snapshot_paths, spread, why_none

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOMENTS = 8
"""Most snapshots in a picture of the whole training."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """A run's snapshots, and the figures drawn from them."""

    snapshots: tuple[Snapshot, ...]
    """At most `MOMENTS`, the first and the newest among them."""
    classes: tuple[str, ...]

    def figures(self) -> dict[str, Figure]:
        """Draw the figures; gives them by name. `distribution` needs an augmentor with samples."""
        drawn = {
            "grid": draw_gallery(self.snapshots[-1], self.classes),
            "strip": draw_strip(self.snapshots, self.classes),
        }
        if self.snapshots[-1].samples:
            drawn["distribution"] = draw_distribution(self.snapshots)
        return drawn


def read_pictures(record: RunRecord) -> Pictures | None:
    """Read a run's snapshots; None: it has none; RunFolderError: one cannot be read."""
    paths = spread(snapshot_paths(record.folder), MOMENTS)
    return Pictures(tuple(read_snapshot(path) for path in paths), record.classes) if paths else None


def write_pictures(run: Path, to: Path | None = None) -> list[Path]:
    """Write `grid.png`, `strip.png`, `distribution.png`, by default to the gallery; RunFolderError: no snapshots."""
    record = read_record(run)
    pictures = read_pictures(record)
    if pictures is None:
        raise RunFolderError(f"{run} has no snapshots to draw: {why_none(record.config)}")
    folder = record.folder.gallery if to is None else to.expanduser()
    paths = []
    for name, figure in pictures.figures().items():
        try:
            save_png(figure, folder / f"{name}.png")
        except OSError as error:
            raise RunFolderError(f"{folder} cannot be written: {error.strerror}") from None
        paths.append(folder / f"{name}.png")
    return paths
