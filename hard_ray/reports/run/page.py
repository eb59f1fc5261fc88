"""The page of a run: one self-contained HTML file."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from hard_ray.config.run import RunConfig, asks_tokens, embeds
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.reports.curves import draw_robustness, draw_training, draw_validation, is_curve
from hard_ray.reports.evaluation_plots import draw_evaluation
from hard_ray.reports.figures import COLOURS, INK, to_svg
from hard_ray.reports.html import (
    Html,
    conditions_table,
    details,
    document,
    figure_of,
    heading,
    note,
    number,
    section,
    side_by_side,
    table_of,
    write_document,
)
from hard_ray.reports.run.distribution import bounds_in_unit, unit_of
from hard_ray.reports.run.pictures import Pictures, read_pictures
from hard_ray.runs.record import RunRecord, read_record, shareable
from hard_ray.runs.scores import MEASURES, logged_scores, measure_of, scores
from hard_ray.runs.snapshots import why_none
from hard_ray.runs.summary import label, models_table

By = dict[str, dict[str, float]]
"""What networks are judged by, in percent by condition and severity."""


def write_page(run: Path, to: Path | None = None) -> Path:
    """Write the page of a run, by default `report.html` in its folder; RunFolderError: no run, or a damaged file."""
    record = read_record(run)
    path = record.folder.report if to is None else to.expanduser()
    text = page(record, read_pictures(record))
    write_document(path, text)
    return path


def page(record: RunRecord, pictures: Pictures | None) -> Html:
    """The whole document."""
    drawn = {name: to_svg(figure) for name, figure in pictures.figures().items()} if pictures else {}
    parts = [
        _head(record),
        section("Results", _results(record)),
        section("Training", _training(record)),
        section("Validation", _validation(record)),
        section("Robustness", _robustness(record)),
        section("Evaluation", _evaluation(record)),
        section("What the augmentor learned", _augmentor(record, pictures, drawn)),
        section("Pictures", _gallery(record, drawn)),
        section("Time", _time(record)),
        section("Provenance", _origin(record)),
    ]
    return document(f"{record.name} - hardray", "\n".join(parts))


def _head(record: RunRecord) -> Html:
    config = record.config
    steps = record.outcome.get("steps")
    source = "labels" if config.objective.kind == "cross_entropy" else config.teacher.model
    facts = [f"{config.student.model} from {source}", f"objective {config.objective.kind}"]
    facts += [f"augmentor {config.augmentor.kind}"]
    facts += [f"{steps['student']:,} student and {steps['augmentor']:,} augmentor updates"] if steps else []
    unfinished = f"Not finished: this page shows the {record.updates:,} updates that have been logged so far."
    return heading("report", record.name, facts, [] if record.outcome else [unfinished])


def _results(record: RunRecord) -> Html:
    models = (record.summary or {}).get("models") or {name: scores(found) for name, found in record.evaluations.items()}
    parts = []
    if models:
        header, body = models_table(models, record.config)
        split = (record.summary or {}).get("split") or record.split
        parts += [
            table_of(header, body, strong="student" in models),
            note(f"{_capital(record)} on the {split} split, percent."),
        ]
    points = record.of_kind("val")
    if "student" not in models and points:
        last = points[-1]
        found = ", ".join(f"{suite} {last[name]:.1f} %" for suite, name in logged_scores([last]).items())
        what = "" if record.measure == "top1" else f"{MEASURES[record.measure]}, "
        where = f"on the validation split after {last['step']:,} updates"
        parts.append(note(f"The student so far, {where}: {what}{found}."))
    return "".join(parts) or note("Nothing has been measured yet.")


def _capital(record: RunRecord) -> str:
    """What the networks are judged by, at the beginning of a sentence."""
    return MEASURES[record.measure].capitalize()


def _training(record: RunRecord) -> Html:
    points = record.of_kind("train")
    if not points:
        return note("No update has been logged yet.")
    return figure_of(to_svg(draw_training(points, record.phases(), unit=_unit(record.config)))) + _switches(record)


def _unit(config: RunConfig) -> str:
    """What the distance of student and teacher is measured in."""
    if not embeds(config):
        return "nats"
    return "1 - cosine, and tokens" if asks_tokens(config) else "1 - cosine"


def _switches(record: RunRecord) -> Html:
    switches = record.of_kind("switch")
    if not switches:
        return ""
    body = [
        [f"{point['from_update']:,}", str(point["to"]), str(point["reason"]), number(point["switch/disagreement"])]
        for point in switches
    ]
    header = ["from update", "to", "reason", "disagreement, moving average"]
    return details(f"{len(switches):,} phase switches and their reasons", table_of(header, body))


def _validation(record: RunRecord) -> Html:
    points = record.of_kind("val")
    return figure_of(to_svg(draw_validation(points))) if points else ""


def _robustness(record: RunRecord) -> Html:
    figures, tables = [], []
    for suite in dict.fromkeys(suite for found in record.evaluations.values() for suite in found):
        results = {name: found[suite] for name, found in record.evaluations.items() if suite in found}
        parts = {name: result["by"] for name, result in results.items() if "by" in result}
        if parts and all(is_curve(by) for by in parts.values()):
            figures.append(_severities(suite, parts, record))
        elif parts:
            named = {label(name, record.config): by for name, by in parts.items()}
            tables.append(details(f"Suite {suite} by condition", conditions_table(named, record.measure)))
    return side_by_side(figures) + "".join(tables)


def _severities(suite: str, parts: dict[str, By], record: RunRecord) -> Html:
    config = record.config
    condition = next(iter(next(iter(parts.values()))))
    lines = {label(name, config): next(iter(by.values())) for name, by in parts.items()}
    colours = {label(name, config): COLOURS.get(name, INK) for name in parts}
    return figure_of(to_svg(draw_robustness(condition, lines, colours, record.measure)), caption=f"Suite {suite}")


def _evaluation(record: RunRecord) -> Html:
    found = record.later
    if not found:
        return ""
    columns = {
        "top-1": _column(found["suites"], "top1"),
        "teacher's top-1": _column({suite: found["teacher"].get(suite, {}) for suite in found["suites"]}, "top1"),
        "agreement": _column(found["suites"], "agreement"),
        "ECE": _column(found["suites"], "ece"),
        "mCE": _column(found["suites"], "mce"),
        "mCE against the teacher": _column(found["suites"], "mce_vs_teacher"),
    }
    if measure_of(found["suites"]) != "top1":  # what needs labels is not there
        columns = {name: cells for name, cells in columns.items() if set(cells) != {"-"}}
    header = ["suite", *columns, "images"]
    counts = [f"{result['n']:,}" for result in found["suites"].values()]
    body = list(zip(found["suites"], *columns.values(), counts, strict=True))
    figures = "".join(
        figure_of(to_svg(figure), caption=name.replace("_", " ")) for name, figure in draw_evaluation(found).items()
    )
    return table_of(header, body) + note(f"On the {found['split']} split, percent.") + figures


def _column(suites: dict[str, dict[str, Any]], key: str) -> list[str]:
    return [_tenths(result.get(key)) for result in suites.values()]


def _tenths(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _augmentor(record: RunRecord, pictures: Pictures | None, drawn: dict[str, Html]) -> Html:
    if pictures is None:
        return note(f"No snapshots to show: {why_none(record.config)}.")
    if "distribution" not in drawn:
        return note("This augmentor reports no parameters.")
    first, last = pictures.snapshots[0], pictures.snapshots[-1]
    header = ["parameter", "bounds", f"update {first.step:,}", f"update {last.step:,}"]
    body = [
        [unit_of(name).label, "", *(mean_and_deviation(name, found.samples[name]) for found in (first, last))]
        for name in last.samples
    ]
    for row, name in zip(body, last.samples, strict=True):
        row[1] = " to ".join(map(number, bounds_in_unit(name, last.bounds[name]))) if name in last.bounds else "-"
    explained = note("Mean ± standard deviation of the parameters that the augmentor draws.")
    return table_of(header, body) + explained + figure_of(drawn["distribution"])


def mean_and_deviation(name: str, values: Any) -> str:
    """Mean ± standard deviation to two digits of the deviation, but to no more than four of the largest value."""
    converted = unit_of(name).convert(values.astype(np.float64))
    mean, deviation, largest = float(converted.mean()), float(converted.std()), float(np.abs(converted).max())
    places = 1 - math.floor(math.log10(deviation)) if deviation > 0 else 3
    if largest > 0:  # the rounding error of equal values is no deviation
        places = min(places, 3 - math.floor(math.log10(largest)))
    places = max(0, places)
    return f"{mean:z.{places}f} ± {deviation:.{places}f}"


def _gallery(record: RunRecord, drawn: dict[str, Html]) -> Html:
    if not drawn:
        return ""
    explained = "T: the teacher's prediction, S: the student's; red: they differ."
    if embeds(record.config):
        explained = "Below each: the cosine of the embeddings of teacher and student."
    return figure_of(drawn["grid"], caption=f"The newest pictures. {explained}") + details(
        "The same images through training", figure_of(drawn["strip"]), is_open=True
    )


def _time(record: RunRecord) -> Html:
    seconds = record.seconds()
    total = seconds.get("total", 0.0)
    if not total:
        return ""
    names = {
        "student": "student phase",
        "augmentor": "augmentor phase",
        "teacher_wait": "waiting for the teacher",
        "data_wait": "waiting for data",
    }
    parts = {text: seconds[key] for key, text in names.items() if seconds.get(key)}
    parts["other work"] = max(0.0, total - sum(parts.values()))
    colours = ("student", "kd", "teacher", "agree", "labels_only")
    bar = "".join(
        f'<span style="flex: {value / total:.4f}; background: var(--{colour})" title="{escape(text)}"></span>'
        for (text, value), colour in zip(parts.items(), colours, strict=False)
    )
    body = [[text, f"{value:,.1f} s", f"{100 * value / total:.0f} %"] for text, value in parts.items()]
    speed = record.outcome.get("images_per_s")
    sums = f"{total:,.1f} s of updates in total" + (f", {speed:,.0f} images/s." if speed else ".")
    return f'<div class="bar">{bar}</div>' + table_of(["", "time", "share"], body, keys=colours) + note(sums)


def _origin(record: RunRecord) -> Html:
    summary, config = record.summary or {}, record.config
    identity = summary.get("teacher_identity") or record.outcome.get("teacher_identity")
    facts = {
        "seed": str(config.seed),
        "data": config.data.kind,
        "teacher": config.teacher.model if identity or config.objective.kind != "cross_entropy" else "",
        "teacher's identity": identity,
        "unreadable images": str(record.outcome.get("bad_images", "")),
        **summary.get("versions", {}),
    }
    rows = "".join(f"<dt>{escape(key)}</dt><dd>{escape(str(value))}</dd>" for key, value in facts.items() if value)
    yaml = f"<pre>{escape(dump_yaml(shareable(config)))}</pre>"
    return f"<dl>{rows}</dl>" + details("The resolved configuration", yaml)
