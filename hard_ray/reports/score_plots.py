"""Figures of augmentation scores: their ranking, and their correlation with students' losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hard_ray.preparation.scoring import Score, pearson
from hard_ray.reports.curves import LABEL_SIZE, TICK_SIZE, finish, finish_bars
from hard_ray.reports.figures import COLOURS, INK, QUIET, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_scores(scores: Sequence[Score]) -> Figure:
    """Draw a bar for each augmentation, the lowest first, with two standard errors of the difference to it."""
    figure = new_figure(7.2, 0.32 * len(scores) + 1.0)
    axis = figure.subplots()
    axis.barh(
        range(len(scores)),
        [score.t_stddev for score in scores],
        xerr=[2 * score.behind_error for score in scores],
        height=0.62,
        color=[COLOURS["quiet" if score.name == "identity" else "kd"] for score in scores],
        error_kw={"ecolor": INK, "elinewidth": 1.0, "capsize": 2.5},
    )
    finish_bars(axis, [score.name for score in scores])
    axis.set_xlim(left=0)
    axis.set_xlabel(
        "T. stddev, with two standard errors of the difference to the lowest: lower is better",
        fontsize=LABEL_SIZE,
        color=INK,
    )
    return figure


def draw_correlation(scores: Mapping[str, float], losses: Mapping[str, float]) -> Figure:
    """Draw test losses against T. stddev by name, for names in both, with the least-squares line."""
    names = [name for name in scores if name in losses]
    x, y = (np.array([values[name] for name in names]) for values in (scores, losses))
    figure = new_figure(5.6, 4.2)
    axis = figure.subplots()
    if len(set(x)) > 1:
        ends = np.array([x.min(), x.max()])
        axis.plot(ends, np.polyval(np.polyfit(x, y, 1), ends), color=QUIET, linewidth=1.0, linestyle="--")
    axis.scatter(x, y, s=22, color=COLOURS["student"], zorder=3)
    for name, place in zip(names, zip(x, y, strict=True), strict=True):
        axis.annotate(name, place, (5, 4), textcoords="offset points", fontsize=TICK_SIZE, color=INK, parse_math=False)
    axis.margins(x=0.18, y=0.12)
    finish(axis, "test loss of the student", legend=False)
    axis.set_xlabel("T. stddev", fontsize=LABEL_SIZE, color=INK)
    axis.set_title(f"Pearson correlation {pearson(x, y):.3f}, {len(names)} augmentations", fontsize=10, color=INK)
    return figure
