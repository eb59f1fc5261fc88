"""Figures of an evaluation: accuracy by corruption and severity, curves of sweeps, and calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hard_ray.reports.curves import LABEL_SIZE, LEGEND, TICK_SIZE, draw_robustness, finish, is_curve, severity_lines
from hard_ray.reports.figures import COLOURS, INK, LINE, QUIET, new_figure
from hard_ray.runs.scores import measure_of, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 5
By = Mapping[str, Mapping[str, float]]
"""What networks are judged by, in percent by condition and severity."""
CALIBRATED = ("clean", "corruptions", "imagenet-c", "adversarial")
"""Suites whose calibration is drawn, if they were measured."""


def draw_evaluation(result: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw every figure that the numbers in an `evaluation.json` allow; gives them by name."""
    models = {"student": result["suites"], "teacher": result["teacher"]}
    measure = measure_of(result["suites"])
    figures: dict[str, Figure] = {}
    for suite, found in result["suites"].items():
        lines = {model: suites[suite]["by"] for model, suites in models.items() if "by" in suites.get(suite, {})}
        if is_curve(found.get("by", {})):
            (condition,) = found["by"]
            figures[suite] = draw_robustness(
                condition, {model: by[condition] for model, by in lines.items()}, COLOURS, measure
            )
        elif len(found.get("by", {})) > 1:
            figures[suite] = draw_conditions(lines, measure)
    shown = [suite for suite in CALIBRATED if "reliability" in result["suites"].get(suite, {})]
    if shown:
        figures["reliability"] = draw_reliability(
            {suite: {model: suites[suite] for model, suites in models.items() if suite in suites} for suite in shown}
        )
    return figures


def draw_conditions(lines: Mapping[str, By], measure: str) -> Figure:
    """Draw a panel for each condition of the first model: percentages by severity, a line for each model."""
    names = list(next(iter(lines.values())))
    rows = math.ceil(len(names) / COLUMNS)
    figure = new_figure(9.2, 1.75 * rows + 0.5)
    axes = figure.subplots(rows, COLUMNS, squeeze=False, sharey=True)
    for place, axis in enumerate(axes.flat):
        if place < len(names):
            _condition(axis, names[place], lines)
        else:
            axis.set_visible(False)
    for row in axes:
        row[0].set_ylabel(f"{short(measure)}, %", fontsize=LABEL_SIZE, color=INK)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(lines), **LEGEND)
    return figure


def _condition(axis: Axes, name: str, lines: Mapping[str, By]) -> None:
    of_condition = {model: by.get(name, {}) for model, by in lines.items()}
    severity_lines(axis, of_condition, COLOURS, markersize=3, linewidth=1.5)
    finish(axis, "", legend=False)
    axis.set_title(name.replace("_", " "), fontsize=TICK_SIZE, color=INK, parse_math=False)


def draw_reliability(suites: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Figure:
    """Draw accuracy against confidence, a panel for each suite; a calibrated network is on the diagonal."""
    figure = new_figure(2.9 * len(suites) + 0.6, 3.3)
    axes = figure.subplots(1, len(suites), squeeze=False, sharey=True)[0]
    for axis, (suite, models) in zip(axes, suites.items(), strict=True):
        axis.plot([0, 100], [0, 100], color=QUIET, linewidth=1.0, linestyle="--")
        for model, found in models.items():
            _bins(axis, found["reliability"], model, f"{model}, ECE {found['ece']:.1f} %")
        axis.set_xlim(-3, 103)
        axis.set_ylim(-3, 103)
        finish(axis, "", legend=False)
        axis.legend(**LEGEND, loc="upper left")
        axis.set_title(suite, fontsize=LABEL_SIZE, color=INK, parse_math=False)
        axis.set_xlabel("confidence, %", fontsize=LABEL_SIZE, color=INK)
    axes[0].set_ylabel("accuracy, %", fontsize=LABEL_SIZE, color=INK)
    return figure


def _bins(axis: Axes, bins: Sequence[Sequence[float]], model: str, label: str) -> None:
    most = max((count for count, _, _ in bins), default=1.0)
    confidences, accuracies = [each[1] for each in bins], [each[2] for each in bins]
    axis.plot(confidences, accuracies, color=COLOURS[model], linewidth=1.0, label=label)
    sizes = [6 + 60 * count / most for count, _, _ in bins]
    axis.scatter(confidences, accuracies, s=sizes, color=COLOURS[model], edgecolor=LINE, linewidth=0.4, zorder=3)
