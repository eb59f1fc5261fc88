"""The page of a comparison, and its numbers as JSON beside it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hard_ray.errors import RunFolderError
from hard_ray.files import write_json
from hard_ray.reports.comparison.groups import ComparedRun, Comparison, beside, read_comparison
from hard_ray.reports.comparison.pictures import draw_pictures, same_pictures
from hard_ray.reports.comparison.plots import colours_of, draw_accuracy, draw_curves, validated_suites
from hard_ray.reports.comparison.tables import by_condition, differences, mean_by_severity, results, t_tests
from hard_ray.reports.curves import draw_robustness, is_curve
from hard_ray.reports.figures import COLOURS, to_svg
from hard_ray.reports.html import (
    Html,
    conditions_table,
    details,
    document,
    figure_of,
    heading,
    note,
    section,
    side_by_side,
    table_of,
    write_document,
)
from hard_ray.runs.scores import MEASURES, short


@dataclass(frozen=True, slots=True)
class WrittenComparison:
    """A comparison, and the paths of its files."""

    comparison: Comparison
    page: Path
    numbers: Path


def write_comparison(runs: list[Path], to: Path | None = None) -> WrittenComparison:
    """Compare runs and write the page, by default `compare.html` beside them, and its numbers as JSON beside it."""
    comparison = read_comparison(runs)
    page = _default_page(comparison) if to is None else to.expanduser()
    numbers = page.with_suffix(".json")
    if page.is_dir() or page == numbers:
        raise RunFolderError(f"{page} cannot be the page; give the name of an HTML file")
    write_document(page, document("Comparison - hardray", _body(comparison)))
    try:
        write_json(numbers, as_json(comparison))
    except OSError as error:
        raise RunFolderError(f"{numbers} cannot be written: {error.strerror}") from None
    return WrittenComparison(comparison, page, numbers)


def _default_page(comparison: Comparison) -> Path:
    above = os.path.commonpath([run.record.folder.path.parent for run in comparison.runs])
    return Path(above) / "compare.html"


def _body(comparison: Comparison) -> Html:
    parts = [
        _head(comparison),
        section("Results", _results(comparison)),
        section("Different settings", _differing(comparison)),
        section("Significance", _tests(comparison)),
        section("Validation", _validation(comparison)),
        section("Robustness", _robustness(comparison)),
        section("Pictures", _pictures(comparison)),
        section("The runs", _runs(comparison)),
    ]
    return "\n".join(parts)


def _head(comparison: Comparison) -> Html:
    names = [group.name for group in comparison.groups]
    title = " / ".join(names) if len(names) <= 4 else f"{len(names)} ways of training"
    facts = [f"{len(names)} ways of training", f"{len(comparison.runs)} runs"]
    facts += sorted({f"{run.record.split} split" for run in comparison.runs if run.record.split})
    return heading("compare", title, facts, [*comparison.warnings, *comparison.states])


def _results(comparison: Comparison) -> Html:
    header, body = results(comparison)
    keys = [_colour_name(colour) for colour in colours_of(comparison).values()]
    what = (
        "Top-1 by suite, agreement with the teacher and expected calibration error in percent, the latter two on clean "
        "images."
        if comparison.measure == "top1"
        else f"{MEASURES[comparison.measure].capitalize()} by suite, in percent."
    )
    explained = note(f"{what} For several seeds: the mean, with the smallest and largest in brackets.")
    drawn = figure_of(to_svg(draw_accuracy(comparison))) if comparison.suites else ""
    return table_of(header, body, keys=keys) + explained + drawn


def _colour_name(colour: str) -> str:
    return next(name for name, light in COLOURS.items() if light == colour)


def _differing(comparison: Comparison) -> Html:
    header, body = differences(comparison)
    if not body:
        return note("None: the runs differ only in seed and name.")
    return table_of(header, body) + note("Keys of the resolved configuration; - if a kind has no such key.")


def _tests(comparison: Comparison) -> Html:
    if not comparison.pairs:
        return note("A test needs two ways of training with at least two seeds each, measured on the same images.")
    header, body = t_tests(comparison)
    explained = note(
        f"Differences of {short(comparison.measure)} in points of percent, with 95 % confidence intervals and "
        "two-sided p. Paired: a paired t-test over the seeds that both have. "
        "Welch: a test for different seeds and unequal variances."
    )
    return table_of(header, body) + explained + "".join(map(note, comparison.cautions))


def _validation(comparison: Comparison) -> Html:
    if not validated_suites(comparison):
        return ""
    return figure_of(to_svg(draw_curves(comparison)), caption="A line for each run, on the validation split.")


def _robustness(comparison: Comparison) -> Html:
    figures, tables = [], []
    for suite in comparison.suites:
        parts = by_condition(comparison, suite)
        if parts and all(is_curve(by) for by in parts.values()):
            condition = next(iter(next(iter(parts.values()))))
            figures.append(_curve(comparison, suite, condition, {name: by[condition] for name, by in parts.items()}))
        elif parts:
            tables.append(
                details(
                    f"Suite {suite} by condition, mean over severities", conditions_table(parts, comparison.measure)
                )
            )
            lines = {name: mean_by_severity(by) for name, by in parts.items()}
            if is_curve({suite: next(iter(lines.values()))}):
                figures.append(_curve(comparison, suite, suite, lines))
    return side_by_side(figures) + "".join(tables)


def _curve(comparison: Comparison, suite: str, condition: str, lines: dict[str, dict[str, float]]) -> Html:
    drawn = draw_robustness(condition, lines, colours_of(comparison), comparison.measure)
    return figure_of(to_svg(drawn), caption=f"Suite {suite}, means over seeds")


def _pictures(comparison: Comparison) -> Html:
    found = same_pictures(comparison)
    left_out = "".join(map(note, found.left_out))
    if not found.shown:
        return left_out
    caption = (
        "The same images by each run's augmentor, at its newest pictures. T: the teacher's prediction, "
        "S: the student's; red: they differ."
    )
    return figure_of(to_svg(draw_pictures(found)), caption=caption) + left_out


def _runs(comparison: Comparison) -> Html:
    header = ["run", "seed", *comparison.suites, "updates", "folder"]
    body = [_run_row(comparison, run) for run in comparison.runs]
    return details(f"{len(body)} runs one by one", table_of(header, body))


def _run_row(comparison: Comparison, run: ComparedRun) -> list[str]:
    values, record = run.values(), run.record
    keys = [f"{comparison.measure}/{suite}" for suite in comparison.suites]
    scores = [f"{values[key]:.1f}" if key in values else "-" for key in keys]
    return [run.name, str(record.config.seed), *scores, f"{run.updates:,}", str(record.folder.path)]


def as_json(comparison: Comparison) -> dict[str, Any]:
    """All numbers, as `compare.json` holds them."""
    measure = comparison.measure
    metrics = [f"{measure}/{suite}" for suite in comparison.suites]
    metrics += [*beside(measure), "seconds_per_update", "updates"]
    names = [group.name for group in comparison.groups]
    return {
        **({} if measure == "top1" else {"measure": measure}),
        "groups": [
            {
                "name": group.name,
                "runs": [_run_as_json(run) for run in group.runs],
                "metrics": {metric: asdict(found) for metric in metrics if (found := group.spread(metric)) is not None},
            }
            for group in comparison.groups
        ],
        "differing": {key: dict(zip(names, values, strict=True)) for key, values in comparison.differing.items()},
        "pairs": [
            {"first": pair.first, "second": pair.second, "suite": pair.suite, **asdict(pair.found)}
            for pair in comparison.pairs
        ],
        "warnings": list(comparison.warnings),
        "states": list(comparison.states),
        "cautions": list(comparison.cautions),
    }


def _run_as_json(run: ComparedRun) -> dict[str, Any]:
    kept = ("step", "student_step", "epoch")
    return {
        "name": run.name,
        "folder": str(run.record.folder.path),
        "seed": run.record.config.seed,
        "finished": bool(run.record.outcome),
        "split": run.record.split,
        "values": run.values(),
        "suites": run.suites,
        "validation": [
            {key: value for key, value in point.items() if key in kept or key.startswith("val/")}
            for point in run.record.of_kind("val")
        ],
    }
