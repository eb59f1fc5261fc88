"""The distribution of the augmentor's parameters over a run, as ridge plots, and their units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hard_ray.reports.curves import LABEL_SIZE, quiet_axes
from hard_ray.reports.figures import INK, LINE, new_figure
from hard_ray.runs.snapshots import Snapshot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 48
OVERLAP = 1.6
"""Height of the tallest ridge, in distances between two ridges."""


FEW = 6
"""With more parameters than this, panels are smaller."""
WIDTH = 9.2
"""Width of the figure in inches, as wide as the page, which would stretch a narrower one."""
CHANCE = "p_"
"""Begins the last part of the name of a probability, which is drawn as a cell for each snapshot."""


def draw_distribution(snapshots: Sequence[Snapshot]) -> Figure:
    """Draw a panel for each parameter that the augmentor draws, with a ridge for each snapshot, oldest on top.

    Probabilities share one panel below: their means, by operation and snapshot.
    """
    names = list(snapshots[0].samples)
    chances = [name for name in names if is_chance(name)]
    values = [name for name in names if name not in chances]
    few = len(values) <= FEW
    columns = min(3 if few else 4, max(1, len(values)))
    rows = -(-len(values) // columns)
    heights = [((0.3 if few else 0.13) * len(snapshots) + 1.0) * rows, 0.2 * len(chances) + 0.7 if chances else 0.0]
    figure = new_figure(WIDTH, sum(heights))
    figure.suptitle("distribution of the augmentor's parameters by update", fontsize=10, color=INK)
    parts: Any = figure.subfigures(2, 1, height_ratios=heights) if values and chances else (figure, figure)
    if values:
        axes = parts[0].subplots(rows, columns, squeeze=False)
        for place, axis in enumerate(axes.flat):
            if place < len(values):
                _ridges(axis, values[place], snapshots, label_updates=place % columns == 0, small=not few)
            else:
                axis.set_visible(False)
    if chances:
        _chances(parts[1].subplots(), chances, snapshots)
    return figure


def is_chance(name: str) -> bool:
    """Whether the values of a name are probabilities of an operation."""
    return name.rpartition(".")[2].startswith(CHANCE)


def _chances(axis: Axes, names: Sequence[str], snapshots: Sequence[Snapshot]) -> None:
    """A cell for each operation and snapshot, with the mean probability in percent."""
    means = np.array([[float(snapshot.samples[name].mean()) for snapshot in snapshots] for name in names])
    most = max(0.5, float(means.max()))
    axis.pcolormesh(means, cmap="viridis", vmin=0.0, vmax=most)
    for (row, column), mean in np.ndenumerate(means):
        colour = "#ffffff" if mean < 0.6 * most else "#000000"
        axis.text(column + 0.5, row + 0.5, f"{100 * mean:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axis.invert_yaxis()
    axis.set_yticks(np.arange(len(names)) + 0.5, [unit_of(name).name for name in names])
    axis.set_xticks(np.arange(len(snapshots)) + 0.5, [f"{snapshot.step:,}" for snapshot in snapshots])
    axis.set_xlabel("update; mean probability that an operation is applied, percent", fontsize=LABEL_SIZE, color=INK)
    quiet_axes(axis)


def _ridges(axis: Axes, name: str, snapshots: Sequence[Snapshot], *, label_updates: bool, small: bool) -> None:
    unit = unit_of(name)
    values = [unit.convert(snapshot.samples[name].astype(np.float64)) for snapshot in snapshots]
    low, high = _limits(name, snapshots, values)
    densities = [density(found, low, high) for found in values]
    tallest = max(float(each.max()) for each in densities) or 1.0
    places = np.linspace(low, high, BINS)
    for place, (heights, colour) in enumerate(zip(densities, ramp(len(snapshots)), strict=True)):
        base = float(len(snapshots) - 1 - place)
        top = base + OVERLAP * heights / tallest
        axis.fill_between(places, base, top, color=colour, alpha=0.75, linewidth=0, zorder=place + 2)
        axis.plot(places, top, color=colour, linewidth=1.0, zorder=place + 2)
    axis.set_xlim(low, high)
    axis.set_ylim(-0.1, len(snapshots) + 0.8)
    updates = [f"{snapshot.step:,}" for snapshot in reversed(snapshots)]
    axis.set_yticks(range(len(snapshots)), updates if label_updates else [""] * len(snapshots))
    if label_updates:
        axis.set_ylabel("update", fontsize=LABEL_SIZE, color=INK)
    label, size = (unit.label.replace(", ", ",\n"), 8) if small else (unit.label, LABEL_SIZE)
    axis.set_xlabel(label, fontsize=size, color=INK, parse_math=False)
    axis.grid(visible=True, color=LINE, linewidth=0.6)
    quiet_axes(axis)
    if small:
        axis.tick_params(labelsize=7)
        axis.locator_params(axis="x", nbins=4)


def _limits(name: str, snapshots: Sequence[Snapshot], values: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    bounds = snapshots[-1].bounds.get(name)
    low, high = bounds_in_unit(name, bounds) if bounds else (min(map(np.min, values)), max(map(np.max, values)))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def density(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """A smoothed histogram; values at a bound stay within it."""
    counts, _ = np.histogram(values.clip(low, high), BINS, (low, high))
    smooth: NDArray[np.float64] = np.convolve(
        np.pad(counts / max(1, len(values)), 2, mode="symmetric"), np.array([1, 4, 6, 4, 1]) / 16, mode="valid"
    )
    return smooth


def ramp(count: int) -> list[str]:
    """Colours from early to late, visible on a light and on a dark page."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["viridis"](place)) for place in np.linspace(0.3, 0.82, count)]


Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Unit:
    """A readable name and unit, and the conversion of the augmentor's values to it."""

    name: str
    unit: str = ""
    convert: Callable[[Values], Values] = lambda values: values
    """Non-decreasing, so that bounds stay bounds."""

    @property
    def label(self) -> str:
        """Name and unit, for an axis."""
        return f"{self.name}, {self.unit}" if self.unit else self.name


UNITS = {
    "shift_x": Unit("shift to the right", "share of the side", lambda half_sides: half_sides / 2),
    "shift_y": Unit("shift down", "share of the side", lambda half_sides: half_sides / 2),
    "rotation": Unit("rotation", "degrees", np.degrees),
    "log_scale": Unit("scale", "factor", np.exp),
    "shear": Unit("shear", "degrees", lambda slope: np.degrees(np.arctan(slope))),
    "brightness": Unit("brightness", "added value"),
    "log_contrast": Unit("contrast", "factor", np.exp),
    "log_saturation": Unit("saturation", "factor", np.exp),
    "hue": Unit("hue", "degrees", np.degrees),
    "log_gamma": Unit("gamma", "exponent", np.exp),
    "flip": Unit("flip"),
    "haze": Unit("haze", "share of light"),
    "sharpness": Unit("sharpness", "weight"),
    "blur": Unit("blur", "pixels"),
    "log_pixelation": Unit("pixelation", "pixels", np.exp),
    "gaussian_noise": Unit("Gaussian noise", "deviation"),
    "shot_noise": Unit("shot noise", "deviation at 1"),
    "sparse_noise": Unit("sparse noise", "share of values"),
    "erasing": Unit("erasing", "share of the side"),
    "own_share": Unit("share of the own image"),
    "mask_contrast": Unit("contrast of the mask", "standard deviation"),
    "latent_change": Unit("change of the latent", "standard deviations"),
    "pixel_change": Unit("change of the pixels", "root mean square"),
}
"""By the last part of the names in `Augmentor.samples`."""


def unit_of(name: str) -> Unit:
    """The unit of a parameter by its name, which in a sequence begins with its part; unknown ones are not converted."""
    part, _, last = name.rpartition(".")
    known = UNITS.get(last.removeprefix(CHANCE))
    if known is None:
        return Unit(name)
    if last.startswith(CHANCE):
        known = Unit(known.name, "probability")
    return known if not part else Unit(f"{part}: {known.name}", known.unit, known.convert)


def bounds_in_unit(name: str, bounds: tuple[float, float]) -> tuple[float, float]:
    """The range of a parameter in its readable unit."""
    low, high = unit_of(name).convert(np.array(bounds, dtype=np.float64)).tolist()
    return low, high
