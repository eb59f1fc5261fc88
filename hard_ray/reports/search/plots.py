"""Figures of a search: history, importance of settings, parallel coordinates, Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hard_ray.config.distribution import Choice, Distribution, LogRandInt, LogUniform
from hard_ray.reports.curves import LABEL_SIZE, LEGEND, TICK_SIZE, finish, finish_bars
from hard_ray.reports.figures import COLOURS, INK, LINE, QUIET, new_figure
from hard_ray.runs.trials import Goal, Trial, TrialStatus

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STATUS_COLOURS = {
    TrialStatus.FINISHED: COLOURS["student"],
    TrialStatus.STOPPED: COLOURS["labels_only"],
    TrialStatus.RUNNING: COLOURS["kd"],
}


def draw_history(trials: Sequence[Trial], goal: Goal) -> Figure:
    """Draw the metric of each trial in the order of their start, and the best so far; trials without it leave a gap."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(7.2, 3.4)
    axis = figure.subplots()
    shown = [(number, trial) for number, trial in enumerate(trials, 1) if trial.status is not TrialStatus.FAILED]
    known = [(number, trial) for number, trial in shown if goal.metric in trial.metrics]
    for status, colour in STATUS_COLOURS.items():
        of = [(number, trial.metrics[goal.metric]) for number, trial in known if trial.status is status]
        if of:
            numbers, values = zip(*of, strict=True)
            axis.scatter(numbers, values, s=22, color=colour, label=str(status), zorder=3)
    measured = np.array([trial.metrics[goal.metric] for _, trial in known])
    best = (np.maximum if goal.mode == "max" else np.minimum).accumulate(measured)
    axis.step([number for number, _ in known], best, where="post", color=INK, linewidth=1.2, label="best so far")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    finish(axis, goal.metric, legend=False)
    axis.legend(**LEGEND)
    axis.set_xlabel("trial", fontsize=LABEL_SIZE, color=INK)
    return figure


def draw_importance(shares: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw the share of each metric's variance that each setting explains; a metric without shares gets no panel."""
    panels = {metric: by for metric, by in shares.items() if by}
    rows = max(len(by) for by in panels.values())
    figure = new_figure(7.2, len(panels) * (0.36 * rows + 1.0))
    for axis, (metric, by) in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels.items(), strict=True):
        axis.barh(range(len(by)), list(by.values()), height=0.6, color=COLOURS["kd"])
        axis.set_xlim(0, 1)
        finish_bars(axis, list(by))
        label = f"share of the variance of {metric} (fANOVA)"
        axis.set_xlabel(label, fontsize=LABEL_SIZE, color=INK, parse_math=False)
    return figure


def draw_parallel(trials: Sequence[Trial], parameters: Mapping[str, Distribution], goal: Goal) -> Figure:
    """Draw a line for each trial through its settings and the metric; better trials have a stronger colour."""
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    ranked = sorted(trials, key=goal.sort_key, reverse=True)
    values = [trial.metrics[goal.metric] for trial in ranked]
    names = [*parameters, goal.metric]
    columns = [places(drawn, [trial.config[key] for trial in ranked]) for key, drawn in parameters.items()]
    low, high = min(values), max(values)
    columns.append([(value - low) / (high - low) if high > low else 0.5 for value in values])
    figure = new_figure(1.6 + 1.5 * len(names), 3.8)
    axis = figure.subplots()
    shades = LinearSegmentedColormap.from_list("good", [LINE, COLOURS["student"]])
    order = Normalize(0, max(1, len(ranked) - 1))
    for number in range(len(ranked)):
        line = [column[number] for column in columns]
        axis.plot(range(len(names)), line, color=shades(order(number)), linewidth=1.4, zorder=number + 2)
    for place, name in enumerate(names):
        axis.axvline(place, color=LINE, linewidth=1.0, zorder=1)
        ticks = tick_places(parameters[name]) if name in parameters else {f"{low:.4g}": 0.0, f"{high:.4g}": 1.0}
        _ticks(axis, place, ticks)
    wrapped = [name.replace(".", ".\n").replace("/", "/\n", 1) for name in names]
    axis.set_xticks(range(len(names)), wrapped, fontsize=TICK_SIZE, parse_math=False)
    axis.set_xlim(-0.2, len(names) - 0.5)
    axis.set_ylim(-0.05, 1.05)
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.tick_params(length=0, colors=INK)
    return figure


def draw_pareto(trials: Sequence[Trial], front: Sequence[Trial], goals: Sequence[Goal]) -> Figure:
    """Draw trials by two metrics, with a line through the Pareto front, the trials that no other one dominates."""
    first, second = goals
    figure = new_figure(5.6, 4.2)
    axis = figure.subplots()
    chosen = {trial.id for trial in front}
    others = [trial for trial in trials if trial.id not in chosen]
    x, y = _points(others, first, second)
    axis.scatter(x, y, s=22, color=COLOURS["labels_only"], label="dominated")
    ordered = sorted(front, key=lambda trial: trial.metrics[first.metric])
    colour = COLOURS["student"]
    axis.plot(*_points(ordered, first, second), color=colour, marker="o", markersize=5, label="Pareto front")
    axis.margins(0.1)
    finish(axis, f"{second.metric} ({second.mode})", legend=False)
    axis.legend(**LEGEND)
    axis.set_xlabel(f"{first.metric} ({first.mode})", fontsize=LABEL_SIZE, color=INK)
    return figure


def places(drawn: Distribution, values: Sequence[Any]) -> list[float]:
    """Positions of values between the lower end, 0, and the upper end, 1; choices have equal distances."""
    if isinstance(drawn, Choice):
        last = max(1, len(drawn.choice) - 1)
        return [drawn.choice.index(value) / last for value in values]
    low, high = drawn.numbers[:2]
    if isinstance(drawn, LogUniform | LogRandInt):
        return [float(np.log(value / low) / np.log(high / low)) for value in values]
    return [(value - low) / (high - low) for value in values]


def tick_places(drawn: Distribution) -> dict[str, float]:
    """Tick labels of an axis with their positions: both ends, or every choice."""
    values = drawn.ends()
    texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return dict(zip(texts, places(drawn, values), strict=True))


def _points(trials: Sequence[Trial], first: Goal, second: Goal) -> tuple[list[float], list[float]]:
    return [trial.metrics[first.metric] for trial in trials], [trial.metrics[second.metric] for trial in trials]


def _ticks(axis: Axes, place: float, ticks: Mapping[str, float]) -> None:
    for text, height in ticks.items():
        axis.annotate(
            text,
            (place, height),
            (5, 0),
            textcoords="offset points",
            fontsize=TICK_SIZE,
            color=QUIET,
            va="center",
            parse_math=False,
            zorder=1000,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1.0},
        )
