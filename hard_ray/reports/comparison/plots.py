"""Figures of a comparison: final results by suite, and validation curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hard_ray.reports.comparison.groups import Comparison, Spread
from hard_ray.reports.curves import LABEL_SIZE, LEGEND, SERIES, finish, plain_text
from hard_ray.reports.figures import INK, new_figure
from hard_ray.runs.scores import logged_scores, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vP"
"""Colours repeat after six groups, with another marker."""
WIDTH = 0.7
"""Width of a suite's groups side by side, relative to the distance between suites."""
MOST_PANELS = 3
PAGE = 9.2
"""Width of a figure that fills a page, in inches; a page would enlarge a narrower one, with its letters."""


def colours_of(comparison: Comparison) -> dict[str, str]:
    """The colour of each group in every figure and table."""
    return {group.name: SERIES[place % len(SERIES)] for place, group in enumerate(comparison.groups)}


def draw_accuracy(comparison: Comparison) -> Figure:
    """Draw the measure by suite: the mean over seeds, with the smallest and largest."""
    groups, suites, colours = comparison.groups, comparison.suites, colours_of(comparison)
    figure = new_figure(PAGE, 3.2)
    axis = figure.subplots()
    for place, group in enumerate(groups):
        shift = WIDTH * ((place + 0.5) / len(groups) - 0.5)
        spreads = [(number, group.spread(f"{comparison.measure}/{suite}")) for number, suite in enumerate(suites)]
        known = [(number + shift, spread) for number, spread in spreads if spread is not None]
        marker = MARKERS[place // len(SERIES) % len(MARKERS)]
        if not known:
            continue
        _with_ranges(axis, known, colours[group.name], marker, group.name)
    axis.set_xticks(range(len(suites)), suites, parse_math=False)
    axis.set_xlim(-0.5, len(suites) - 0.5)
    finish(axis, f"{short(comparison.measure)}, %", legend=False)
    axis.grid(visible=False, axis="x")
    _name_groups(figure)
    return figure


def _with_ranges(axis: Axes, known: list[tuple[float, Spread]], colour: str, marker: str, label: str) -> None:
    below = [spread.mean - spread.smallest for _, spread in known]
    above = [spread.largest - spread.mean for _, spread in known]
    axis.errorbar(
        [place for place, _ in known],
        [spread.mean for _, spread in known],
        yerr=[below, above],
        fmt=marker,
        color=colour,
        markersize=6,
        elinewidth=1.4,
        capsize=4,
        label=label,
    )


def validated_suites(comparison: Comparison) -> dict[str, str]:
    """The logged name of the measure by suite, for the validation curves."""
    points = [point for run in comparison.runs for point in run.record.of_kind("val")]
    return logged_scores(points, measure=comparison.measure)


def draw_curves(comparison: Comparison) -> Figure:
    """Draw the measure on the validation split over updates, a panel for each suite and a line for each run."""
    panels, colours = validated_suites(comparison), colours_of(comparison)
    columns = min(MOST_PANELS, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(PAGE, 2.6 * rows + 0.4)
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis, (suite, name) in zip(axes, panels.items(), strict=False):
        for group in comparison.groups:
            for run in group.runs:
                points = [point for point in run.record.of_kind("val") if name in point]
                marker = "o" if len(points) < 40 else None
                xs, ys = [point["step"] for point in points], [point[name] for point in points]
                axis.plot(xs, ys, color=colours[group.name], linewidth=1.3, marker=marker, markersize=2.5, alpha=0.85)
        finish(axis, f"{suite}, {short(comparison.measure)}, %", legend=False)
        axis.set_xlabel("update", fontsize=LABEL_SIZE, color=INK)
    for axis in axes:
        axis.set_visible(False)
    _name_groups(figure, colours)
    return figure


def _name_groups(figure: Figure, colours: dict[str, str] | None = None) -> None:
    """Add a legend beneath the panels: the labels of the first one, or lines in these colours."""
    from matplotlib.lines import Line2D

    if colours is None:
        handles, labels = figure.axes[0].get_legend_handles_labels()
    else:
        handles = [Line2D([], [], color=colour, linewidth=1.8) for colour in colours.values()]
        labels = list(colours)
    plain_text(figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), **LEGEND))
