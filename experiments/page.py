"""Makes docs/experiments.md and its history from the finished rows and the notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.front import front_of, verdict
from experiments.picture import draw_front
from experiments.results import TITLES, Result, Spread, by_suite, read_results, spread
from experiments.rows import HERE, RUNS, rows_of, seeded, verb_of
from hard_ray.preparation.scoring import pearson
from hard_ray.reports.figures import save_png
from hard_ray.reports.score_plots import draw_correlation

Table = Mapping[str, Any]
Tables = Mapping[str, Table]
Results = Mapping[str, Sequence[Result]]
"""The results of a table, by variant."""

DOCS = HERE.parent / "docs"
COSTS = ("seconds_per_update", "augmentor_share")
UNRECORDED = "a processor that was not recorded"
HOW = """`make experiments` writes this page from the rows in `docs/experiments/`; change `experiments/rows.yaml` or
`experiments/{notes}` instead. Accuracy is top-1 in percent on the test split: the mean over seeds, with minimum and
maximum. $NAMES in commands are folders.
"""
PAGES = {
    "experiments.md": ("main", "# Experiments\n", "notes.md", "\nEarlier rows: [History](experiments-history.md).\n"),
    "experiments-history.md": (
        "history",
        "# Experiments: history\n",
        "notes-history.md",
        "\nThese rows have short trainings from a teacher that is no more robust than its students;\n"
        "[Experiments](experiments.md) has those that decide.\n",
    ),
}
"""By file: the tables' `page`, the title, the notes, and a remark."""


def write_pages(tables: Tables, folder: Path = DOCS) -> list[Path]:
    """Write the pages from the existing results; return their paths."""
    written = []
    for file, (page, title, notes, remark) in PAGES.items():
        names = [name for name, table in tables.items() if table.get("page", "main") == page]
        parts = [title]
        parts += [part for name in names if "front" in tables[name] for part in _front(name, tables, folder / "images")]
        parts += [HOW.format(notes=notes) + remark]
        parts += [section for name in names for section in _sections(name, tables, folder / "images")]
        parts += _without_results(names, tables)
        if (HERE / notes).exists():
            parts.append((HERE / notes).read_text(encoding="utf-8"))
        folder.mkdir(parents=True, exist_ok=True)
        written.append(folder / file)
        written[-1].write_text("\n".join(parts), encoding="utf-8")
    return written


def _results(name: str, tables: Tables) -> dict[str, list[Result]]:
    """The results of a table by variant, without those that have none."""
    found = {variant: read_results(rows) for variant, rows in rows_of(name, tables).items()}
    return {variant: results for variant, results in found.items() if results}


def _front(name: str, tables: Tables, pictures: Path) -> list[str]:
    """The picture of a table's methods by clean accuracy and accuracy under corruptions, and what it says."""
    table, results = tables[name], _results(name, tables)
    front = front_of(table, results)
    if len(front.methods) < 2:
        return []
    save_png(draw_front(front), pictures / f"{name}.png")
    counts = {variant: len(results.get(variant, [])) for variant in table["variants"]}
    return [
        f"**{table['title']}**\n",
        f"![Clean accuracy and accuracy under corruptions of each method](images/{name}.png)\n",
        f"{verdict(front)} {_open(counts, len(table['seeds']))}".strip() + "\n",
    ]


def _sections(name: str, tables: Tables, pictures: Path) -> list[str]:
    """The section of a table, if any of its rows is done."""
    table, results = tables[name], _results(name, tables)
    if not results:
        return []
    if verb_of(table["command"]) in RUNS:
        return [_section(name, tables, results)]
    return [_ranking(name, tables, results, pictures)]


def _without_results(names: Sequence[str], tables: Tables) -> list[str]:
    """A sentence on the tables none of whose rows is done."""
    missing = [name for name in names if not _results(name, tables)]
    said = [
        f"{tables[name]['title']} ({', '.join(f'`{each}`' for each in tables[name]['variants'])})" for name in missing
    ]
    return [f"No result yet: {'; '.join(said)}.\n"] if said else []


def _section(name: str, tables: Tables, results: Results) -> str:
    table = tables[name]
    lines = [f"## {table['title']}", "", *_scores(table, results), ""]
    if "curve" in table:
        lines += [*_curve(table, results), ""]
    if "conditions" in table:
        lines += [*_conditions(table["conditions"], _measured(table, results)), ""]
    counts = {variant: len(results.get(variant, [])) for variant in table["variants"]}
    missing = _open(counts, len(table["seeds"]))
    lines += [missing, ""] if missing else []
    lines += [*_processors(results), *_commands(table), ""]
    return "\n".join(lines)


def _open(counts: Mapping[str, int], seeds: int) -> str:
    """A sentence that names the rows without a result, and those that lack seeds; empty if there are none."""
    missing = [f"`{name}`" if not n else f"`{name}` ({n} of {seeds} seeds)" for name, n in counts.items() if n < seeds]
    return f"Open: {', '.join(missing)}." if missing else ""


def _processors(results: Results) -> list[str]:
    """On what the rows were run, which moves the last digits and all seconds; nothing if it was not recorded."""
    names: dict[str, dict[str, None]] = {}  # variants by processor, each once and in order
    for variant, of_variant in results.items():
        for result in of_variant:
            names.setdefault(result.get("processor", UNRECORDED), {})[variant] = None
    if not {*names} - {UNRECORDED}:
        return []
    if len(names) == 1:
        return [f"All rows were run on {next(iter(names))}.", ""]
    said = "; ".join(f"{', '.join(f'`{each}`' for each in variants)} on {name}" for name, variants in names.items())
    return [f"Seconds are comparable between rows of one processor alone: {said}.", ""]


def _commands(table: Table) -> list[str]:
    """The command of each variant: what all have in common once, and then the words that differ."""
    variants: Mapping[str, str] = table["variants"]
    common = " ".join(f"hardray {seeded(table['command'], 'N')}".split())
    if verb_of(table["command"]) not in RUNS:
        common += " --output scores"  # a run names a folder of its own
    if len(variants) == 1:
        return ["```bash", f"{common} {next(iter(variants.values()))}".strip(), "```"]
    lines = ["```bash", common, "```", "", "| variant | the command goes on with |", "|---|---|"]
    return [*lines, *(f"| {variant} | {_words(words)} |" for variant, words in variants.items())]


def _words(words: str) -> str:
    """The words of a variant, or which row it is."""
    if words.startswith("="):
        return f"the row `{words.removeprefix('=').replace('/', '-')}`"
    return f"`{' '.join(words.split())}`" if words else "nothing"


def _scores(table: Table, results: Results) -> list[str]:
    columns = table["columns"]
    titles = [TITLES.get(column, column) for column in columns]
    header = ["", *titles, "s per student update", "time in augmentor phases", "seeds"]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for title, (model, having) in _measured(table, results).items():
        cells = [_cell(spread(having, model, column), column) for column in columns]
        lines.append(f"| {' | '.join([title, *cells, *_costs(model, having), str(len(having))])} |")
    return lines


def _cell(found: Spread | None, column: str) -> str:
    if found is None:
        return ""
    return found.text(digits={"test loss": 3, "seconds": 0}.get(column, 1))


def _measured(table: Table, results: Results) -> dict[str, tuple[str, list[Result]]]:
    """The models of a table by their titles, each with its name in the results that have it."""
    found: dict[str, tuple[str, list[Result]]] = {}
    for variant, of_variant in results.items():
        for model, label in table["models"].items():
            having = [result for result in of_variant if model in result["models"]]
            title = variant if model == "student" and len(table["variants"]) > 1 else label
            if having:
                found.setdefault(title, (model, having))  # the teacher is the same in every row
    return found


def _costs(model: str, results: Sequence[Result]) -> list[str]:
    """Seconds per student update in total, and the share of augmentor phases."""
    costs = [result["costs"][model] for result in results if model in result["costs"]]
    seconds, share = (_mean([cost[key] for cost in costs if key in cost]) for key in COSTS)
    return ["" if seconds is None else f"{seconds:.3f}", "" if share is None else f"{100 * share:.0f} %"]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _curve(table: Table, results: Results) -> list[str]:
    """Accuracy by severity, as a mean over seeds, for every model of the table."""
    suite = table["curve"]
    names = dict(table["models"])
    points: dict[str, dict[str, list[float]]] = {}
    for result in (result for of_variant in results.values() for result in of_variant):
        for model in names:
            for severities in by_suite(result, model).get(suite, {}).values():
                for severity, top1 in severities.items():
                    points.setdefault(model, {}).setdefault(severity, []).append(top1)
    severities = list(next(iter(points.values()), {}))
    lines = [f"| {suite} | {' | '.join(severities)} |", f"|{'---|' * (len(severities) + 1)}"]
    for model, values in points.items():
        cells = [f"{sum(values[severity]) / len(values[severity]):.1f}" for severity in severities]
        lines.append(f"| {names[model]} | {' | '.join(cells)} |")
    return lines


def _conditions(conditions: Mapping[str, Any], measured: Mapping[str, tuple[str, Sequence[Result]]]) -> list[str]:
    """Accuracy under each condition of a suite, as a mean over seeds and severities, for every model of the table.

    The conditions that were `seen` in some training are marked, and the mean over the others stands below.
    """
    suite, seen = conditions["suite"], conditions["seen"]
    top1 = {
        title: _by_condition([by_suite(each, model)[suite] for each in found])
        for title, (model, found) in measured.items()
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


def _by_condition(found: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """The mean over seeds and severities, by condition."""
    values = {name: [top1 for each in found for top1 in each[name].values()] for name in found[0]}
    return {name: sum(each) / len(each) for name, each in values.items()}


def _ranking(name: str, tables: Tables, results: Results, pictures: Path) -> str:
    """T. stddev of each augmentation, and the test loss of its students."""
    table = tables[name]
    (result, *_), *_ = results.values()
    scores = result["scores"]
    losses = _test_losses(table["losses"], tables)
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
    return "\n".join([*lines, *_commands(table), ""])


def _test_losses(name: str, tables: Tables) -> dict[str, float]:
    """The students' mean test loss, by variant."""
    found = {variant: spread(results, "student", "test loss") for variant, results in _results(name, tables).items()}
    return {variant: losses.mean for variant, losses in found.items() if losses is not None}
