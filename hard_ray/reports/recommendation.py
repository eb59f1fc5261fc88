"""The page of a recommendation, and its tables as text for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from hard_ray.config.recommend import KD
from hard_ray.config.run import RunConfig
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.errors import command_line
from hard_ray.preparation.recommend_folder import RecommendFolder
from hard_ray.preparation.recommend_gains import ERRORS
from hard_ray.preparation.recommend_plan import shown
from hard_ray.preparation.scoring import Score
from hard_ray.reports.curves import LABEL_SIZE, draw_robustness, finish_bars, is_curve
from hard_ray.reports.figures import COLOURS, INK, LINE, new_figure, to_svg
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
from hard_ray.reports.score_plots import draw_scores
from hard_ray.runs.record import shareable
from hard_ray.runs.scores import MEASURES, measure_of, short
from hard_ray.storage.mirror import shown_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, Any]
Table = tuple[list[str], list[list[str]]]
"""Header and rows."""

LABELS = {KD: "plain KD", "labels_only": "labels only", "configured": "the configuration's augmentor"}
MODELS = {"teacher": "teacher", "begins": "student as it begins"}


def write_page(folder: RecommendFolder) -> Path:
    """Write the page from the folder alone; a recommendation need not have ended."""
    config, settings = folder.begun()
    record = folder.read_record()
    parts = [
        _head(config, settings.budget_s, record),
        section("What to take", _conclusion(folder, record)),
        section(
            "What there is to hand on" if _has_labels(record) else "Agreement with the teacher", _robustness(record)
        ),
        section("Pilots", _pilots(record)),
        section("Strength and temperature", _variants(record)),
        section("T. stddev", _scores(record)),
        section("Left out for lack of time", _list(record["skipped"])),
        section("Provenance", _origin(config, record)),
    ]
    write_document(folder.report, document("Recommendation - hardray", "\n".join(parts)))
    return folder.report


def measured_by(record: Record) -> str:
    """What the networks of a recommendation are judged by; one of `MEASURES`."""
    return measure_of(record["begins"]["suites"]) if "begins" in record else "top1"


def _has_labels(record: Record) -> bool:
    return measured_by(record) == "top1"


def _named(record: Record) -> str:
    """The measure at the start of a sentence."""
    name = MEASURES[measured_by(record)]
    return name[0].upper() + name[1:]


def label(name: str) -> str:
    """A pilot's name for a reader."""
    return LABELS.get(name, name)


def _head(config: RunConfig, budget_s: float, record: Record) -> Html:
    conclusion = record.get("conclusion")
    facts = [f"{config.student.model} from {config.teacher.model}", f"data {config.data.kind}"]
    facts += [f"{shown(record['spent_s'])} of a budget of {shown(budget_s)}"]
    if conclusion is None:
        return heading("recommend", "No recommendation yet", facts, [f"Not finished: {record.get('status')}."])
    return heading("recommend", f"Take {label(conclusion['recommended'])}", facts, conclusion["warnings"])


def _conclusion(folder: RecommendFolder, record: Record) -> Html:
    conclusion = record.get("conclusion")
    if conclusion is None:
        return note("The pilots are not finished.")
    command = escape(command_line("distill", "-c", shown_path(folder.recommended)))
    header, body = gain_table(record)
    return (
        "".join(f"<p>{escape(sentence)}</p>" for sentence in conclusion["sentences"])
        + f"<pre>{command}</pre>"
        + (table_of(header, body) if body else "")
        + note(
            f"{_named(record)} on held-out images of the validation split, percent, means over seeds. Gains are "
            "differences on the same images, with two standard errors. Pilots are short: a full training may gain less "
            "or more."
        )
    )


def gain_table(record: Record) -> Table:
    """A row for each suite: plain KD, the best candidate, and the gain."""
    conclusion = record["conclusion"]
    best, gain = conclusion["best"], conclusion["gain"]
    header = ["suite", label(KD), label(best or ""), "gain"]
    if gain is None:
        return header, []
    both = [conclusion["means"][name] for name in (KD, best)]
    rows = [
        [suite, *(f"{each[suite]:.1f}" for each in both), plus_minus(found)] for suite, found in gain["suites"].items()
    ]
    means = [f"{fmean(each.values()):.1f}" for each in both]
    return header, [*rows, ["mean", *means, plus_minus(gain["score"])]]


def plus_minus(gain: Mapping[str, float]) -> str:
    """A gain with two standard errors."""
    return f"{gain['points']:+.2f} ± {ERRORS * gain['error']:.2f}"


def _robustness(record: Record) -> Html:
    if "teacher" not in record:
        return note("The teacher has not been measured yet.")
    measure = measured_by(record)
    networks = {MODELS[key]: record[key] for key in MODELS if key != "teacher" or _has_labels(record)}
    conclusion = record.get("conclusion")
    if conclusion is not None:
        pilots = record["rungs"][record["last_rung"]]["pilots"]
        shown_pilots = dict.fromkeys([KD, *([conclusion["best"]] if conclusion["best"] else [])])
        networks |= {label(name): pilots[name] for name in shown_pilots}
    suites = list(record["teacher"]["suites"])
    body = [[name, *(f"{found['suites'][suite][measure]:.1f}" for suite in suites)] for name, found in networks.items()]
    images = ", ".join(f"{count:,} of {suite}" for suite, count in record["teacher"]["images"].items())
    head = table_of([f"{short(measure)}, %", *suites], body) + note(f"Images: {images}.")
    figures, tables = [], []
    for suite in suites:
        by = {name: found["by"][suite] for name, found in networks.items()}
        if all(map(is_curve, by.values())):
            condition = next(iter(record["teacher"]["by"][suite]))
            lines = {name: found[condition] for name, found in by.items()}
            drawn = draw_robustness(condition, lines, _colours(list(by)), measure)
            figures.append(figure_of(to_svg(drawn), caption=f"Suite {suite}"))
        elif len(record["teacher"]["by"][suite]) > 1:
            tables.append(details(f"Suite {suite} by condition", conditions_table(by, measure), is_open=True))
    return head + side_by_side(figures) + "".join(tables)


def _colours(names: Sequence[str]) -> dict[str, str]:
    keys = ("teacher", "quiet", "kd", "student")[0 if MODELS["teacher"] in names else 1 :]
    return dict(zip(names, (COLOURS[key] for key in keys), strict=False))


def pilot_table(record: Record, rung: str) -> Table:
    """A row for each pilot of a rung, the best on top."""
    entry = record["rungs"][rung]
    suites = list(record["teacher"]["suites"])
    clean = "clean" if "clean" in suites else suites[0]
    costs = record.get("costs", {}).get("update_s", {})
    measure = measured_by(record)
    agreement = ["agreement"] if _has_labels(record) else []
    header = ["pilot", *suites, "mean", "gain over plain KD", *agreement, f"loss, {clean}", "ms/update"]
    rows = []
    for name in entry["order"]:
        found = entry["pilots"][name]
        cost = found.get("update_s", costs.get(name))  # an older record has the newest cost alone
        rows.append(
            [
                label(name),
                *(f"{found['suites'][suite][measure]:.1f}" for suite in suites),
                f"{found['score']:.1f}",
                plus_minus(found["gain"]["score"]) if "gain" in found else "",
                *(f"{found['suites'][clean][name]:.1f}" for name in agreement),
                f"{found['suites'][clean]['loss']:.3f}",
                "-" if cost is None else f"{1000 * cost:.1f}",
            ]
        )
    return header, [*rows, *([label(name), "diverged"] + [""] * (len(header) - 2) for name in entry["diverged"])]


def finished_rungs(record: Record) -> list[str]:
    """The rungs of the comparison itself that are finished, the longest first."""
    names = [name for name, entry in record["rungs"].items() if "order" in entry]
    return [name for name in reversed(names) if name.startswith("rung-")]


def _pilots(record: Record) -> Html:
    rungs = finished_rungs(record)
    if not rungs:
        return note("No rung is finished.")
    parts = [figure_of(to_svg(draw_gains(record)), caption="Gain of the mean over plain KD of the same rung")]
    seeds = [name for name, entry in record["rungs"].items() if name.startswith("seed-") and "order" in entry]
    for rung in [*rungs, *seeds]:
        entry = record["rungs"][rung]
        header, body = pilot_table(record, rung)
        summary = f"{rung}: {entry['updates']:,} updates, seed {entry['seed']}"
        parts.append(details(summary, table_of(header, body), is_open=True))
    beside = (
        "Agreement with the teacher is on the suite of the loss."
        if _has_labels(record)
        else "The loss is the divergence from the teacher."
    )
    explained = note(
        f"{_named(record)} in percent. Pilots of a rung have equal student updates, the same seed and the whole "
        f"schedule, compressed to their length. The mean of the suites decides who goes on. {beside} A gain in this "
        "table is of one seed, and its two standard errors are over images alone."
    )
    return "".join(parts) + explained


def draw_gains(record: Record) -> Figure:
    """Draw the gain over plain KD of every pilot in its longest rung, the best on top, with two standard errors."""
    gains: dict[str, tuple[str, Mapping[str, float]]] = {}
    for rung in finished_rungs(record):
        entry = record["rungs"][rung]
        for name in entry["order"]:
            if "gain" in entry["pilots"][name]:
                gains.setdefault(name, (rung, entry["pilots"][name]["gain"]["score"]))
    figure = new_figure(7.2, 0.36 * len(gains) + 1.0)
    axis = figure.subplots()
    axis.barh(
        range(len(gains)),
        [gain["points"] for _, gain in gains.values()],
        xerr=[ERRORS * gain["error"] for _, gain in gains.values()],
        height=0.62,
        color=[COLOURS["labels_only" if name == "labels_only" else "student"] for name in gains],
        error_kw={"ecolor": INK, "elinewidth": 1.0, "capsize": 2.5},
    )
    finish_bars(axis, [f"{label(name)} ({rung})" for name, (rung, _) in gains.items()])
    axis.axvline(0, color=LINE, linewidth=1.0)
    unit = short(measured_by(record))
    axis.set_xlabel(f"points of {unit}, mean of the suites, with two standard errors", fontsize=LABEL_SIZE, color=INK)
    return figure


def _variants(record: Record) -> Html:
    entry = record["rungs"].get("variants")
    if entry is None or "order" not in entry:
        return note("No other strength or temperature was tried.") if "conclusion" in record else ""
    header, body = pilot_table(record, "variants")
    text = f"{label(entry['of'])} with one value changed, {entry['updates']:,} updates, seed {entry['seed']}."
    cut = [place for place, name in enumerate(header) if name not in ("gain over plain KD", "ms/update")]
    return table_of([header[place] for place in cut], [[row[place] for place in cut] for row in body]) + note(text)


def _scores(record: Record) -> Html:
    if not record.get("scores"):
        return ""
    facts = record["scores"]["scores"]
    scores = [
        Score(name, each["t_stddev"], each["standard_error"], each["behind"], each["behind_error"])
        for name, each in facts.items()
    ]
    images = 2 * record["scores"]["iterations"] * record["scores"]["batch_size"]
    text = (
        f"Over {record['scores']['groups']} groups of {images:,} images, by the teacher alone, a draw for each image."
    )
    return figure_of(to_svg(draw_scores(scores))) + note(text)


def _list(texts: Sequence[str]) -> Html:
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>" if texts else ""


def _origin(config: RunConfig, record: Record) -> Html:
    facts = {"teacher's identity": record.get("teacher_identity", "-"), **record.get("versions", {})}
    rows = "".join(f"<dt>{escape(key)}</dt><dd>{escape(str(value))}</dd>" for key, value in facts.items())
    yaml = f"<pre>{escape(dump_yaml(shareable(config)))}</pre>"
    return f"<dl>{rows}</dl>" + details("The configuration that this is for", yaml)
