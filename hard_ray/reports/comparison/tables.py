"""The tables of a comparison as text, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from hard_ray.reports.comparison.groups import Comparison, Group, beside, plain
from hard_ray.reports.comparison.t_tests import Difference
from hard_ray.runs.scores import short

Table = tuple[list[str], list[list[str]]]
"""Header and rows."""
By = dict[str, dict[str, float]]
"""What is compared, by condition and severity."""


def results(comparison: Comparison) -> Table:
    """A row for each group: the measure on every suite, what stands beside it, time and length."""
    names = {"agreement": "agreement", "ece": "ECE"}
    more = [names[key] for key in beside(comparison.measure)]
    header = ["runs", "seeds", *comparison.suites, *more, "s/update", "updates"]
    return header, [_result(group, comparison) for group in comparison.groups]


def _result(group: Group, comparison: Comparison) -> list[str]:
    measure = comparison.measure
    percents = [*(f"{measure}/{suite}" for suite in comparison.suites), *beside(measure)]
    cells = [_cell(group, metric, ".1f") for metric in percents]
    cells += [_cell(group, "seconds_per_update", ".3g"), _cell(group, "updates", ",.0f")]
    return [group.name, str(len(group.runs)), *cells]


def _cell(group: Group, metric: str, form: str) -> str:
    spread = group.spread(metric)
    if spread is None:
        return "-"
    mean, smallest, largest = (format(value, form) for value in (spread.mean, spread.smallest, spread.largest))
    parts = [f"{smallest} to {largest}"] if smallest != largest else []
    parts += [f"of {spread.n} seed{'s' if spread.n > 1 else ''}"] if spread.n < len(group.runs) else []
    return f"{mean} ({', '.join(parts)})" if parts else mean


def differences(comparison: Comparison) -> Table:
    """A row for each key of the configuration in which groups differ."""
    header = ["key", *(group.name for group in comparison.groups)]
    differing = sorted(comparison.differing.items())
    rows = [[key, *("-" if value is None else plain(value) for value in values)] for key, values in differing]
    return header, rows


def t_tests(comparison: Comparison) -> Table:
    """A row for each pair of groups and suite."""
    header = [f"difference of {short(comparison.measure)}", "suite", "points", "95 % interval", "p", "test", "n"]
    rows = [
        [f"{pair.second} - {pair.first}", pair.suite, f"{pair.found.difference:+.2f}", *_test(pair.found)]
        for pair in comparison.pairs
    ]
    return header, rows


def _test(found: Difference) -> list[str]:
    interval = "-" if found.low is None or found.high is None else f"{found.low:+.2f} to {found.high:+.2f}"
    p = "-" if found.p is None else "< 0.001" if found.p < 0.001 else f"{found.p:.3f}"
    n = str(found.n[0]) if found.test == "paired" else f"{found.n[0]} and {found.n[1]}"
    return [interval, p, found.test, n]


def by_condition(comparison: Comparison, suite: str) -> dict[str, By]:
    """The measure by condition and severity, for each group whose runs recorded it there; means over its runs."""
    found = {}
    for group in comparison.groups:
        judged = [run for run in group.runs if run.record.measure == comparison.measure]
        parts = [run.suites[suite]["by"] for run in judged if "by" in run.suites.get(suite, {})]
        if parts:
            found[group.name] = _mean_of(parts)
    return found


def _mean_of(parts: Sequence[By]) -> By:
    names = dict.fromkeys(name for by in parts for name in by)
    return {name: _means([by[name] for by in parts if name in by]) for name in names}


def mean_by_severity(by: By) -> dict[str, float]:
    """The measure by severity, the mean over conditions."""
    return _means(by.values())


def _means(lines: Iterable[dict[str, float]]) -> dict[str, float]:
    lines = list(lines)
    keys = dict.fromkeys(key for line in lines for key in line)
    return {key: fmean(line[key] for line in lines if key in line) for key in keys}
