"""Curves of a run, its phases and its robustness, and the style that all axes share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hard_ray.config.controller import Phase
from hard_ray.reports.figures import COLOURS, INK, LINE, QUIET, new_figure
from hard_ray.runs.record import Point
from hard_ray.runs.scores import MEASURES, short, suite_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

SERIES = tuple(COLOURS[name] for name in ("student", "kd", "teacher", "agree", "labels_only", "differ"))
POINTS = 500
"""Most points of a drawn curve; a reader could not tell more apart."""
SEVERITIES = {"shift": "shift, pixels", "rotation": "rotation, degrees", "scale": "scale, factor"}
"""Axis labels with the unit of a condition's severity."""
STRIP_CELLS = 480
LABEL_SIZE, TICK_SIZE = 10, 9
LEGEND: dict[str, Any] = {"fontsize": TICK_SIZE, "frameon": False, "labelcolor": INK}
STUDENT_TURN, AUGMENTOR_TURN = COLOURS["line"], COLOURS["student"]


def draw_training(points: Sequence[Point], phases: Sequence[tuple[Phase, int, int]], *, unit: str = "nats") -> Figure:
    """Draw loss and disagreement, in `unit`, over updates, and beneath them the phases."""
    panels = {
        "loss": {
            "train/loss": "student loss",
            "train/kd_loss": "KD loss on clean images",
            "train/ce_loss": "cross-entropy with the labels",
        },
        f"disagreement, {unit}": {
            "train/disagreement": "student and teacher, augmented images",
            "train/drift": "drift: teacher, augmented and clean images",
        },
    }
    drawn = {title: _present(points, names) for title, names in panels.items()}
    drawn = {title: series for title, series in drawn.items() if series}
    with_strip = len(phases) > 1
    figure = new_figure(9.2, 2.5 * max(1, len(drawn)) + (0.55 if with_strip else 0.2))
    heights = [2.5] * len(drawn) + [0.22] * with_strip
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (title, series) in zip(axes, drawn.items(), strict=False):
        _curves(axis, series, title, log=True)
    if with_strip:
        _strip(axes[-1], phases)
    axes[-1].set_xlabel("update", fontsize=LABEL_SIZE, color=INK)
    return figure


def draw_validation(points: Sequence[Point]) -> Figure:
    """Draw what was measured of accuracy and of agreement with the teacher on the validation split, by suite."""
    names = [name for name in dict.fromkeys(name for point in points for name in point) if name.startswith("val")]
    panels = {
        f"{shown}, %": {name: suite_of(name) for name in names if name.endswith(f"/{measure}")}
        for measure, shown in MEASURES.items()
    }
    drawn = {title: _present(points, wanted) for title, wanted in panels.items()}
    drawn = {title: series for title, series in drawn.items() if series}
    figure = new_figure(9.2, 2.8)
    for axis, (title, series) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn.items(), strict=True):
        _curves(axis, series, title, log=False)
        axis.set_xlabel("update", fontsize=LABEL_SIZE, color=INK)
    return figure


def draw_robustness(
    condition: str, lines: Mapping[str, Mapping[str, float]], colours: Mapping[str, str], measure: str = "top1"
) -> Figure:
    """Draw a measure in percent against severity for one change of the images, a line for each model."""
    figure = new_figure(4.6, 3.2)
    axis = figure.subplots()
    severity_lines(axis, lines, colours, markersize=3.5, linewidth=1.8)
    finish(axis, f"{short(measure)}, %", legend=False)
    plain_text(figure.legend(loc="outside lower center", ncols=2, **LEGEND))
    label = SEVERITIES.get(condition, f"{condition}, severity")
    axis.set_xlabel(label, fontsize=LABEL_SIZE, color=INK, parse_math=False)
    return figure


def severity_lines(
    axis: Axes,
    lines: Mapping[str, Mapping[str, float]],
    colours: Mapping[str, str],
    *,
    markersize: float,
    linewidth: float,
) -> None:
    """Draw percentages against severity, a line for each model with a marker at each measurement."""
    severities = sorted({severity for by in lines.values() for severity in by}, key=float)
    for name, by in lines.items():
        known = [severity for severity in severities if severity in by]
        places, values = [float(severity) for severity in known], [by[severity] for severity in known]
        axis.plot(
            places, values, marker="o", markersize=markersize, linewidth=linewidth, color=colours[name], label=name
        )
    axis.set_xticks([float(severity) for severity in severities], severities)
    axis.set_ylim(-2, 102)


def is_curve(by: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether a suite is one condition at several severities, all of them numbers."""
    severities = list(next(iter(by.values()), {}))
    return len(by) == 1 and len(severities) > 1 and all(_is_number(severity) for severity in severities)


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _present(points: Iterable[Point], names: Mapping[str, str]) -> dict[str, NDArray[np.float64]]:
    """The curves that were logged, by label; each of shape (2, points): updates and values."""
    found = {
        label: np.array([(point["step"], point[name]) for point in points if name in point], dtype=np.float64).T
        for name, label in names.items()
    }
    return {label: _thinned(curve) for label, curve in found.items() if curve.size}


def _thinned(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    size = -(-curve.shape[1] // POINTS)
    if size == 1:
        return curve
    whole = curve.shape[1] // size * size
    means: NDArray[np.float64] = curve[:, :whole].reshape(2, -1, size).mean(axis=2)
    rest = curve[:, whole:]
    return np.concatenate([means, rest.mean(axis=1, keepdims=True)], axis=1) if rest.size else means


def _curves(axis: Axes, series: Mapping[str, NDArray[np.float64]], title: str, *, log: bool) -> None:
    for (label, (updates, values)), colour in zip(series.items(), SERIES * len(series), strict=False):
        marker = "o" if len(updates) < 40 else None
        axis.plot(updates, values, color=colour, linewidth=1.5, marker=marker, markersize=2.5, label=label)
    if log and any((values > 0).any() for _, values in series.values()):
        _log_scale(axis)
    finish(axis, title)


def _log_scale(axis: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_yscale("log")
    low, high = axis.get_ylim()
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if high < 40 * low else (1,)))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def finish_bars(axis: Axes, names: Sequence[str]) -> None:
    """Name horizontal bars, the first on top, and give their axis the style that all share."""
    axis.set_yticks(range(len(names)), names, parse_math=False)
    axis.invert_yaxis()
    finish(axis, "", legend=False)
    axis.grid(visible=False, axis="y")


def finish(axis: Axes, ylabel: str, *, legend: bool = True) -> None:
    """Give an axis the style that all share."""
    axis.set_ylabel(ylabel, fontsize=LABEL_SIZE, color=INK)
    axis.grid(visible=True, color=LINE, linewidth=0.6)
    axis.set_axisbelow(True)
    quiet_axes(axis)
    if legend:
        plain_text(axis.legend(**LEGEND))


def plain_text(legend: Legend) -> None:
    """Show the names in a legend literally: a dollar sign starts no formula."""
    for text in legend.get_texts():
        text.set_parse_math(False)


def quiet_axes(axis: Axes) -> None:
    """Show only the left and bottom spine, in quiet colours."""
    axis.tick_params(labelsize=TICK_SIZE, colors=QUIET, which="both", length=2.5)
    for side, spine in axis.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(LINE)


def _strip(axis: Axes, phases: Sequence[tuple[Phase, int, int]]) -> None:
    """Draw a strip of cells, each the deeper in the augmentor's colour the larger its share of the cell's updates."""
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Patch

    last = phases[-1][2]
    edges = np.linspace(0, last, min(STRIP_CELLS, max(1, last)) + 1)
    taken = np.zeros(len(edges) - 1)
    for phase, start, end in phases:
        if phase is Phase.AUGMENTOR:
            taken += np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], start), 0, None)
    shares = taken / np.diff(edges)
    begins = np.flatnonzero(np.diff(shares, prepend=-1.0))  # equal neighbours become one, without seams
    widths = np.diff(edges[[*begins, len(shares)]])
    axis.bar(0, 1.0, last, align="edge", color=STUDENT_TURN)
    shades = [to_rgba(AUGMENTOR_TURN, share) for share in shares[begins]]
    axis.bar(edges[begins], 1.0, widths, align="edge", color=shades, linewidth=0)
    axis.set_ylim(0, 1)
    axis.set_yticks([])
    axis.set_ylabel("phase", fontsize=LABEL_SIZE, color=INK, rotation=0, ha="right", va="center")
    quiet_axes(axis)
    handles = [Patch(color=STUDENT_TURN, label="student"), Patch(color=AUGMENTOR_TURN, label="augmentor")]
    axis.legend(handles=handles, **LEGEND, ncols=2, loc="upper right", bbox_to_anchor=(1.0, -1.2))
