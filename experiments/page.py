"""Makes docs/experiments.md from the finished rows and `notes.md`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.rows import HERE, RUNS, Row, read_rows, seeded
from hard_ray.preparation.scoring import pearson
from hard_ray.reports.figures import save_png
from hard_ray.reports.score_plots import draw_correlation

PAGE = HERE.parent / "docs" / "experiments.md"
COSTS = ("seconds_per_update", "augmentor_share")
HEAD = """# Experiments

`make experiments` writes this page from the rows in `docs/experiments/`; change `experiments/rows.yaml` or
`experiments/notes.md` instead. Accuracy is top-1 in percent on the test split: the mean over seeds, with minimum and
maximum. $NAMES in commands are folders.
"""


def write_page(tables: Mapping[str, Mapping[str, Any]], path: Path = PAGE) -> None:
    """Write the page from the existing results."""
    parts = [HEAD]
    for name, table in tables.items():
        done = [row for row in read_rows({name: table}) if row.result.exists()]
        if done and done[0].verb in RUNS:
            parts.append(_section(table, done))
        elif done:
            parts.append(_ranking(name, table, done, tables, path.parent / "images"))
    notes = HERE / "notes.md"
    if notes.exists():
        parts.append(notes.read_text(encoding="utf-8"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts), encoding="utf-8")


def _section(table: Mapping[str, Any], rows: Sequence[Row]) -> str:
    results = {row: json.loads(row.result.read_text(encoding="utf-8")) for row in rows}
    lines = [f"## {table['title']}", "", *_scores(table, results), ""]
    if "curve" in table:
        lines += [*_curve(table, results), ""]
    if "conditions" in table:
        lines += [*_conditions(table["conditions"], _measured(table, results)), ""]
    lines += ["| variant | command |", "|---|---|"]
    lines += [f"| {variant} | `hardray {_command(table, variant)}` |" for variant in table["variants"]]
    return "\n".join([*lines, ""])


def _command(table: Mapping[str, Any], variant: str) -> str:
    return " ".join(f"{seeded(table['command'], 'N')} {table['variants'][variant]}".split())


def _scores(table: Mapping[str, Any], results: Mapping[Row, Any]) -> list[str]:
    suites = table["suites"]
    losses = ["test loss"] if table.get("test_loss") else []
    header = ["", *suites, *losses, "s per student update", "time in augmentor phases", "seeds"]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for title, (model, having) in _measured(table, results).items():
        cells = [_mean_and_range([result["models"][model][suite] for result in having]) for suite in suites]
        cells += [_mean_and_range([result["test_loss"][model] for result in having], digits=3) for _ in losses]
        lines.append(f"| {' | '.join([title, *cells, *_costs(model, having), str(len(having))])} |")
    return lines


def _measured(table: Mapping[str, Any], results: Mapping[Row, Any]) -> dict[str, tuple[str, list[Any]]]:
    """The models of a table by their titles, each with its name in the results that have it."""
    found: dict[str, tuple[str, list[Any]]] = {}
    for variant in table["variants"]:
        of_variant = [result for row, result in results.items() if row.variant == variant]
        for model, label in table["models"].items():
            having = [result for result in of_variant if model in result["models"]]
            title = variant if model == "student" and len(table["variants"]) > 1 else label
            if having:
                found.setdefault(title, (model, having))  # the teacher is the same in every row
    return found


def _costs(model: str, results: Sequence[Any]) -> list[str]:
    """Seconds per student update in total, and the share of augmentor phases."""
    costs = [result["costs"][model] for result in results if model in result["costs"]]
    seconds, share = (_mean([cost[key] for cost in costs if key in cost]) for key in COSTS)
    return ["" if seconds is None else f"{seconds:.3f}", "" if share is None else f"{100 * share:.0f} %"]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _curve(table: Mapping[str, Any], results: Mapping[Row, Any]) -> list[str]:
    """Accuracy by severity, as a mean over seeds, for every model of the table."""
    suite = table["curve"]
    names = dict(table["models"])
    points: dict[str, dict[str, list[float]]] = {}
    for result in results.values():
        for model in names:
            for severities in _by(model, result).get(suite, {}).values():
                for severity, top1 in severities.items():
                    points.setdefault(model, {}).setdefault(severity, []).append(top1)
    severities = list(next(iter(points.values()), {}))
    lines = [f"| {suite} | {' | '.join(severities)} |", f"|{'---|' * (len(severities) + 1)}"]
    for model, values in points.items():
        cells = [f"{sum(values[severity]) / len(values[severity]):.1f}" for severity in severities]
        lines.append(f"| {names[model]} | {' | '.join(cells)} |")
    return lines


def _conditions(conditions: Mapping[str, Any], measured: Mapping[str, tuple[str, Sequence[Any]]]) -> list[str]:
    """Accuracy under each condition of a suite, as a mean over seeds and severities, for every model of the table.

    The conditions that were `seen` in some training are marked, and the mean over the others stands below.
    """
    suite, seen = conditions["suite"], conditions["seen"]
    top1 = {
        title: _by_condition([_by(model, each)[suite] for each in found]) for title, (model, found) in measured.items()
    }
    names = list(next(iter(top1.values())))
    unseen = [name for name in names if name not in seen]
    groups = {f"{name} \\*" if name in seen else name: [name] for name in names}
    groups |= {f"**all {len(names)}**": names, f"**the {len(unseen)} without \\***": unseen}
    lines = [f"| {suite} | {' | '.join(top1)} |", f"|{'---|' * (len(top1) + 1)}"]
    for title, members in groups.items():
        means = [sum(of_model[name] for name in members) / len(members) for of_model in top1.values()]
        lines.append(f"| {title} | {' | '.join(f'{mean:.1f}' for mean in means)} |")
    return [*lines, "", f"\\* {conditions['mark']}"]


def _by(model: str, result: Mapping[str, Any]) -> Mapping[str, Any]:
    """A model's accuracy by suite, condition and severity."""
    found: Mapping[str, Any] = result["teacher_by"] if model == "teacher" else result["by"].get(model, {})
    return found


def _by_condition(found: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """The mean over seeds and severities, by condition."""
    values = {name: [top1 for each in found for top1 in each[name].values()] for name in found[0]}
    return {name: sum(each) / len(each) for name, each in values.items()}


def _mean_and_range(values: Sequence[float], *, digits: int = 1) -> str:
    mean, low, high = (f"{value:.{digits}f}" for value in (sum(values) / len(values), min(values), max(values)))
    return mean if len(values) == 1 else f"{mean} ({low} to {high})"


def _ranking(
    name: str, table: Mapping[str, Any], rows: Sequence[Row], tables: Mapping[str, Mapping[str, Any]], pictures: Path
) -> str:
    """T. stddev of each augmentation, and the test loss of its students."""
    scores = json.loads(rows[0].result.read_text(encoding="utf-8"))["scores"]
    losses = _test_losses(table["losses"], tables[table["losses"]])
    lines = [f"## {table['title']}", "", "| second view | T. stddev | standard error | student's test loss |"]
    lines += ["|---|---|---|---|"]
    for augmentation, found in sorted(scores.items(), key=lambda item: item[1]["t_stddev"]):
        loss = f"{losses[augmentation]:.3f}" if augmentation in losses else ""
        lines.append(f"| {augmentation} | {found['t_stddev']:.5f} | {found['standard_error']:.5f} | {loss} |")
    lines.append("")
    values = {each: scores[each]["t_stddev"] for each in scores if each in losses}
    if len(values) > 2:
        correlation = pearson(values.values(), [losses[each] for each in values])
        save_png(draw_correlation(values, losses), pictures / f"{name}.png")
        lines += [f"Pearson correlation over {len(values)} augmentations: {correlation:.3f}", ""]
        lines += [f"![Test loss of students against T. stddev of their second views](images/{name}.png)", ""]
    return "\n".join([*lines, f"`hardray {_command(table, rows[0].variant)}`", ""])


def _test_losses(name: str, table: Mapping[str, Any]) -> dict[str, float]:
    """The students' mean test loss, by variant."""
    found: dict[str, list[float]] = {}
    for row in read_rows({name: table}):
        if row.result.exists():
            loss = json.loads(row.result.read_text(encoding="utf-8"))["test_loss"]["student"]
            found.setdefault(row.variant, []).append(loss)
    return {variant: sum(values) / len(values) for variant, values in found.items()}
