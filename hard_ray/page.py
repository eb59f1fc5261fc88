"""The page of a run: one HTML file that needs nothing beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from hard_ray.config.loader import dump_yaml
from hard_ray.config.run import RunConfig
from hard_ray.errors import RunFolderError
from hard_ray.evaluation_plots import draw_evaluation
from hard_ray.figures import COLOURS, INK, PALETTE, to_svg
from hard_ray.pictures import Pictures, read_pictures
from hard_ray.plots import draw_robustness, draw_training, draw_validation, is_curve
from hard_ray.record import RunRecord, read_record
from hard_ray.report import label, table, top1
from hard_ray.run_folder import write_text
from hard_ray.snapshots import why_none
from hard_ray.units import bounds_in_unit, unit_of

Html = str
"""Text that is markup already; every other text goes through `escape`."""
By = dict[str, dict[str, float]]
"""Accuracy by condition and severity."""


def write_page(run: Path, to: Path | None = None) -> Path:
    """Write the page of a run, finished or not; by default to `report.html` in its folder.

    Raises:
        RunFolderError: there is no run, a file of it is damaged, or the page cannot be written.
    """
    record = read_record(run)
    path = record.folder.report if to is None else to.expanduser()
    text = page(record, read_pictures(record))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise RunFolderError(f"{path} cannot be written: {error.strerror}") from None
    return path


def page(record: RunRecord, pictures: Pictures | None) -> Html:
    """The whole document."""
    drawn = {name: to_svg(figure) for name, figure in pictures.figures().items()} if pictures else {}
    parts = [
        _head(record),
        _section("Results", _results(record)),
        _section("Training", _training(record)),
        _section("Validation", _validation(record)),
        _section("Robustness", _robustness(record)),
        _section("Evaluation", _evaluation(record)),
        _section("What the augmentor learned", _augmentor(record, pictures, drawn)),
        _section("Pictures", _gallery(record, drawn)),
        _section("Where the time went", _time(record)),
        _section("How it was made", _origin(record)),
    ]
    return _document(f"{record.name} - hardray", "\n".join(parts))


def _document(title: str, body: Html) -> Html:
    style = files("hard_ray").joinpath("page.css").read_text(encoding="utf-8")
    light, dark = ("".join(f"--{name}: {pair[which]};" for name, pair in PALETTE.items()) for which in (0, 1))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
:root {{ {light} }}
@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


# ----------------------------------------------------------------------- sections


def _head(record: RunRecord) -> Html:
    config = record.config
    steps = record.outcome.get("steps")
    facts = [f"{config.student.model} from {config.teacher.model}", f"objective {config.objective.kind}"]
    facts += [f"augmentor {config.augmentor.kind}"]
    facts += [f"{steps['student']:,} student and {steps['augmentor']:,} augmentor updates"] if steps else []
    state = "" if record.outcome else f'<p class="notice">{escape(_unfinished(record))}</p>'
    chips = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    return f'<header><p class="kicker">hardray report</p><h1>{escape(record.name)}</h1><ul>{chips}</ul>{state}</header>'


def _unfinished(record: RunRecord) -> str:
    return f"Not finished: {record.updates:,} updates have been logged, and this page shows what there is so far."


def _results(record: RunRecord) -> Html:
    models = (record.summary or {}).get("models") or {name: top1(found) for name, found in record.evaluations.items()}
    parts = []
    if models:
        header, body = table(models, record.config)
        split = (record.summary or {}).get("split") or record.split
        parts += [_table(header, body, strong="student" in models), _note(f"Top-1 on the {split} split, percent.")]
    points = record.of_kind("val")
    if "student" not in models and points:
        last = points[-1]
        scores = ", ".join(f"{suite} {value:.1f} %" for suite, value in _validated(last).items())
        parts.append(_note(f"The student so far, on the validation split after {last['step']:,} updates: {scores}."))
    return "".join(parts) or _note("Nothing has been measured yet.")


def _validated(point: dict[str, Any]) -> dict[str, float]:
    tops = {name.removesuffix("top1"): value for name, value in point.items() if name.endswith("top1")}
    return {name[len("val/") : -1] or "clean": value for name, value in tops.items() if name.startswith("val/")}


def _training(record: RunRecord) -> Html:
    points = record.of_kind("train")
    if not points:
        return _note("No update has been logged yet.")
    return _figure(to_svg(draw_training(points, record.phases()))) + _switches(record)


def _switches(record: RunRecord) -> Html:
    switches = record.of_kind("switch")
    if not switches:
        return ""
    body = [
        [f"{point['from_update']:,}", str(point["to"]), str(point["reason"]), _number(point["switch/disagreement"])]
        for point in switches
    ]
    header = ["from update", "to", "reason", "disagreement, moving average"]
    return _details(f"{len(switches):,} phase switches and their reasons", _table(header, body))


def _validation(record: RunRecord) -> Html:
    points = record.of_kind("val")
    return _figure(to_svg(draw_validation(points))) if points else ""


def _robustness(record: RunRecord) -> Html:
    """Suites whose severities are numbers as curves, suites of several conditions as tables."""
    figures, tables = [], []
    for suite in dict.fromkeys(suite for found in record.evaluations.values() for suite in found):
        results = {name: found[suite] for name, found in record.evaluations.items() if suite in found}
        parts = {name: result["by"] for name, result in results.items() if "by" in result}
        if parts and all(is_curve(by) for by in parts.values()):
            figures.append(_severities(suite, parts, record.config))
        elif parts:
            tables.append(_details(f"Suite {suite} by condition", _conditions(parts, record.config)))
    beside = f'<div class="beside">{"".join(figures)}</div>' if figures else ""
    return beside + "".join(tables)


def _severities(suite: str, parts: dict[str, By], config: RunConfig) -> Html:
    condition = next(iter(next(iter(parts.values()))))
    lines = {label(name, config): next(iter(by.values())) for name, by in parts.items()}
    colours = {label(name, config): COLOURS.get(name, INK) for name in parts}
    return _figure(to_svg(draw_robustness(condition, lines, colours)), caption=f"Suite {suite}")


def _conditions(parts: dict[str, By], config: RunConfig) -> Html:
    """Means over severities."""
    names = dict.fromkeys(condition for by in parts.values() for condition in by)
    body = [
        [name, *(f"{np.mean(list(by[name].values())):.1f}" if name in by else "-" for by in parts.values())]
        for name in names
    ]
    return _table(["top-1, %", *(label(name, config) for name in parts)], body)


def _evaluation(record: RunRecord) -> Html:
    """What `hardray evaluate` measured after the run: a row for each suite, and its figures."""
    found = record.later
    if not found:
        return ""
    header = ["suite", "top-1", "teacher's top-1", "agreement", "ECE", "mCE", "mCE against the teacher", "images"]
    body = [
        [
            suite,
            *map(_tenths, (result["top1"], found["teacher"].get(suite, {}).get("top1"), result.get("agreement"))),
            *map(_tenths, (result["ece"], result.get("mce"), result.get("mce_vs_teacher"))),
            f"{result['n']:,}",
        ]
        for suite, result in found["suites"].items()
    ]
    figures = "".join(
        _figure(to_svg(figure), caption=name.replace("_", " ")) for name, figure in draw_evaluation(found).items()
    )
    return _table(header, body) + _note(f"On the {found['split']} split, percent.") + figures


def _tenths(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _augmentor(record: RunRecord, pictures: Pictures | None, drawn: dict[str, Html]) -> Html:
    if pictures is None:
        return _note(f"There is nothing to show: {why_none(record.config)}.")
    if "distribution" not in drawn:
        return _note("This augmentor does not say what it draws.")
    first, last = pictures.snapshots[0], pictures.snapshots[-1]
    header = ["parameter", "bounds", f"update {first.step:,}", f"update {last.step:,}"]
    body = [
        [unit_of(name).label, "", *(_spread(name, found.samples[name]) for found in (first, last))]
        for name in last.samples
    ]
    for row, name in zip(body, last.samples, strict=True):
        row[1] = " to ".join(map(_number, bounds_in_unit(name, last.bounds[name]))) if name in last.bounds else "-"
    note = _note("Mean ± standard deviation of what the augmentor draws.")
    return _table(header, body) + note + _figure(drawn["distribution"])


def _spread(name: str, values: Any) -> str:
    """Mean and deviation, with as many places as the deviation's second digit has."""
    converted = unit_of(name).convert(values.astype(np.float64))
    mean, deviation = float(converted.mean()), float(converted.std())
    places = max(0, 1 - math.floor(math.log10(deviation))) if deviation > 0 else 3
    return f"{mean:z.{places}f} ± {deviation:.{places}f}"


def _gallery(record: RunRecord, drawn: dict[str, Html]) -> Html:
    if not drawn:
        return ""
    return _figure(
        drawn["grid"],
        caption="The newest pictures. T: what the teacher says, S: the student; red where they differ.",
    ) + _details("The same images through training", _figure(drawn["strip"]), is_open=True)


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
    parts["the rest of the updates"] = max(0.0, total - sum(parts.values()))
    colours = ("student", "kd", "teacher", "agree", "labels_only")
    bar = "".join(
        f'<span style="flex: {value / total:.4f}; background: var(--{colour})" title="{escape(text)}"></span>'
        for (text, value), colour in zip(parts.items(), colours, strict=False)
    )
    body = [[text, f"{value:,.1f} s", f"{100 * value / total:.0f} %"] for text, value in parts.items()]
    speed = record.outcome.get("images_per_s")
    note = f"{total:,.1f} s of updates" + (f", {speed:,.0f} images/s." if speed else ".")
    return f'<div class="bar">{bar}</div>' + _table(["", "time", "share"], body, keys=colours) + _note(note)


def _origin(record: RunRecord) -> Html:
    summary, config = record.summary or {}, record.config
    facts = {
        "seed": str(config.seed),
        "data": config.data.kind,
        "teacher": str(config.teacher.model),
        "teacher's identity": summary.get("teacher_identity") or record.outcome.get("teacher_identity"),
        "images that could not be read": str(record.outcome.get("bad_images", "")),
        **summary.get("versions", {}),
    }
    rows = "".join(f"<dt>{escape(key)}</dt><dd>{escape(str(value))}</dd>" for key, value in facts.items() if value)
    yaml = f"<pre>{escape(dump_yaml(_shareable(config)))}</pre>"
    return f"<dl>{rows}</dl>" + _details("The resolved configuration", yaml)


def _shareable(config: RunConfig) -> RunConfig:
    """The configuration without the user and password of a tracking server: pages are passed on."""
    uri = config.tracking.uri
    if uri is None or "@" not in urlsplit(uri).netloc:
        return config
    parts = urlsplit(uri)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return config.model_copy(update={"tracking": config.tracking.model_copy(update={"uri": bare})})


# ------------------------------------------------------------------------ elements


def _section(title: str, content: Html) -> Html:
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def _figure(svg: Html, *, caption: str = "") -> Html:
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><div class="scroll">{svg}</div>{below}</figure>'


def _details(summary: str, content: Html, *, is_open: bool = False) -> Html:
    return f"<details{' open' if is_open else ''}><summary>{escape(summary)}</summary>{content}</details>"


def _note(text: str) -> Html:
    return f'<p class="note">{escape(text)}</p>'


def _table(
    header: Sequence[str], body: Iterable[Sequence[str]], *, strong: bool = False, keys: Sequence[str] = ()
) -> Html:
    """A table; `strong` stresses the last row, `keys` are colours before the first cells."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    rows = [[escape(cell) for cell in row] for row in body]
    for row, key in zip(rows, keys, strict=False):
        row[0] = f'<i style="background: var(--{key})"></i>{row[0]}'
    text = "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in rows)
    kind = ' class="strong"' if strong else ""
    return f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead><tbody>{text}</tbody></table></div>'


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
