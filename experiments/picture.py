"""The picture of clean accuracy against accuracy under corruptions, a point for each method."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from experiments.front import Front, Method
from experiments.results import Spread
from hard_ray.reports.curves import LABEL_SIZE, TICK_SIZE, finish
from hard_ray.reports.figures import COLOURS, INK, QUIET, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

WIDTH, HEIGHT = 7.2, 5.6
STYLES: dict[str, dict[str, Any]] = {
    "hard": {"marker": "D", "markersize": 8, "color": COLOURS["student"]},
    "learned": {"marker": "D", "markersize": 7, "color": COLOURS["student"], "markerfacecolor": "white"},
    "kd": {"marker": "s", "markersize": 8, "color": INK},
    "aside": {"marker": "^", "markersize": 8, "color": QUIET, "markerfacecolor": "white"},
    "other": {"marker": "o", "markersize": 7, "color": COLOURS["kd"], "markerfacecolor": "white"},
}
"""Marks that differ in shape and filling, so that they are told apart without colours."""
LEGEND = {"hard": "HARD", "learned": "its other forms", "kd": "plain KD", "aside": "no teacher", "other": "others"}
DISTANCES = (11, 18, 27, 38, 52, 70)
"""Distances of a label from its point that are tried, in points of 1/72 inch."""
DIRECTIONS = 16


def draw_front(front: Front) -> Figure:
    """Draw a point for each method with its range over seeds, the front, plain KD, and where the teacher is."""
    figure = new_figure(WIDTH, HEIGHT)
    axis = figure.subplots()
    labels = [_draw_point(axis, method, _part(front, method)) for method in front.methods]
    best = front.best
    axis.plot(
        [method.clean.mean for method in best],
        [method.corruptions.mean for method in best],
        color=QUIET,
        linewidth=1.2,
        linestyle="--",
        zorder=1,
        label="front",
    )
    axis.margins(x=0.12, y=0.12)
    finish(axis, "accuracy under the corruptions, %", legend=False)
    axis.set_xlabel("accuracy on clean images, %", fontsize=LABEL_SIZE, color=INK)
    axis.set_title(_title(front), fontsize=LABEL_SIZE, color=COLOURS["teacher"], loc="right")
    figure.legend(*_legend(front), loc="outside lower center", ncols=6, fontsize=TICK_SIZE, frameon=False)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the places of labels are chosen for this layout
    _place(figure, axis, front, labels)
    return figure


def _part(front: Front, method: Method) -> str:
    parts = {"kd": (front.kd,), "hard": front.hard, "learned": front.learned, "aside": front.aside}
    return next((part for part, names in parts.items() if method.name in names), "other")


def _draw_point(axis: Axes, method: Method, part: str) -> Annotation:
    style = STYLES[part]
    place = (method.clean.mean, method.corruptions.mean)
    axis.errorbar(
        *place,
        xerr=_arms(method.clean),
        yerr=_arms(method.corruptions),
        linestyle="none",
        ecolor=style["color"],
        elinewidth=0.9,
        capsize=2.5,
        alpha=0.55,
        zorder=2,
    )
    axis.plot(*place, linestyle="none", zorder=3, **style)
    return axis.annotate(
        method.name,
        place,
        (0, 0),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=TICK_SIZE,
        fontweight="bold" if part in ("hard", "kd") else "normal",
        color=INK,
        parse_math=False,
        arrowprops={"arrowstyle": "-", "color": QUIET, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4},
        zorder=4,
    )


def _arms(found: Spread) -> list[list[float]]:
    """From the mean to the smallest and to the largest."""
    return [[found.mean - found.low], [found.high - found.mean]]


def _title(front: Front) -> str:
    """Where the teacher is: so far from its students that these would lie on each other in a picture of both."""
    teacher = front.teacher
    if teacher is None:
        return ""
    is_beyond = all(teacher.betters(method) for method in front.methods)
    arrow = " \N{NORTH EAST ARROW}" if is_beyond else ""
    return f"the teacher: {teacher.clean.mean:.1f} % clean, {teacher.corruptions.mean:.1f} % under corruptions{arrow}"


def _legend(front: Front) -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D

    parts = [part for part in LEGEND if any(_part(front, method) == part for method in front.methods)]
    handles = [Line2D([], [], linestyle="none", **STYLES[part]) for part in parts]
    line = Line2D([], [], color=QUIET, linewidth=1.2, linestyle="--")
    return [*handles, line], [*(LEGEND[part] for part in parts), "front"]


# ------------------------------------------------------------------ places of labels


def _place(figure: Figure, axis: Axes, front: Front, labels: Sequence[Annotation]) -> None:
    """Move each label to the nearest place within the axes where it covers no label, no point and no line.

    The points whose neighbours are nearest choose first. Where no place is free, the one that covers least is taken.
    """
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    inner, methods = axis.get_window_extent(), front.methods
    points = [axis.transData.transform((each.clean.mean, each.corruptions.mean)) for each in methods]
    marks = [Bbox.from_bounds(x - 9, y - 9, 18, 18) for x, y in points]
    arms = [box for method in methods for box in _arm_boxes(axis, method)] + _front_boxes(axis, front)
    taken: list[Bbox] = []
    order = sorted(range(len(labels)), key=lambda number: _crowd(points, number))
    for number in order:
        box = Text.get_window_extent(labels[number])  # without the line to the point
        width, height = box.width + 4, box.height + 2
        best = min(
            _offsets(width, height, figure.dpi),
            key=lambda offset: (
                _cost(_around(points[number], offset, width, height, figure.dpi), inner, taken, marks, arms)
                + 0.05 * math.hypot(*offset)
            ),
        )
        labels[number].set_position(best)
        taken.append(_around(points[number], best, width, height, figure.dpi))


def _crowd(points: Sequence[Any], number: int) -> float:
    """The distance to the nearest other point, in pixels."""
    x, y = points[number]
    return min((math.hypot(x - u, y - v) for at, (u, v) in enumerate(points) if at != number), default=math.inf)


def _offsets(width: float, height: float, dpi: float) -> Iterator[tuple[float, float]]:
    """Places of a label's centre around its point, in points; sideways by half of its width more."""
    for distance, turn in itertools.product(DISTANCES, range(DIRECTIONS)):
        right, up = (f(2 * math.pi * turn / DIRECTIONS) for f in (math.cos, math.sin))
        yield right * (distance + 36 * width / dpi), up * (distance + 36 * height / dpi * abs(right))


def _around(point: Any, offset: tuple[float, float], width: float, height: float, dpi: float) -> Bbox:
    from matplotlib.transforms import Bbox

    x, y = (at + moved * dpi / 72 for at, moved in zip(point, offset, strict=True))
    return Bbox.from_bounds(x - width / 2, y - height / 2, width, height)


def _arm_boxes(axis: Axes, method: Method) -> list[Bbox]:
    """The error bars of a method, in pixels."""
    from matplotlib.transforms import Bbox

    clean, corruptions = method.clean, method.corruptions
    ends = [
        [(clean.low, corruptions.mean), (clean.high, corruptions.mean)],
        [(clean.mean, corruptions.low), (clean.mean, corruptions.high)],
    ]
    return [Bbox(axis.transData.transform(pair)).padded(1.5) for pair in ends]


def _front_boxes(axis: Axes, front: Front) -> list[Bbox]:
    """Small boxes along the front, in pixels."""
    import numpy as np
    from matplotlib.transforms import Bbox

    corners = axis.transData.transform([(method.clean.mean, method.corruptions.mean) for method in front.best])
    places = [np.linspace(one, other, 40) for one, other in itertools.pairwise(corners)]
    return [Bbox.from_bounds(x - 3, y - 3, 6, 6) for line in places for x, y in line]


def _cost(box: Bbox, inner: Bbox, taken: Sequence[Bbox], marks: Sequence[Bbox], arms: Sequence[Bbox]) -> float:
    """What a label in `box` covers, as shares of its area: labels and points weigh most, lines least."""
    outside = box.width * box.height - _common(box, inner)
    weighed = [(100.0, outside), *((100.0, _common(box, other)) for other in taken)]
    weighed += [(60.0, _common(box, mark)) for mark in marks] + [(6.0, _common(box, arm)) for arm in arms]
    return float(sum(weight * area for weight, area in weighed) / (box.width * box.height))


def _common(one: Bbox, other: Bbox) -> float:
    """The area that two boxes share."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(max(0.0, width) * max(0.0, height))
