"""`hardray compare`: compares runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from ..options import path_or_url
from ..tables import print_table
from ..terminal import console, errors, say

if TYPE_CHECKING:
    from hard_ray.reports.comparison.groups import Comparison
    from hard_ray.reports.comparison.tables import Table


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN RUN ...", help="Run folders or URLs, or RUN/controls/NAME.", parser=path_or_url),
    ],
    to: Annotated[Path | None, typer.Option(help="The HTML file; by default compare.html beside the runs.")] = None,
) -> None:
    """Compare runs: accuracy, cost, configuration, and whether seeds explain the difference.

    Only the run folders are read; runs may still be going on. Runs that differ only in their seeds share a row. The
    page has the curves too, and a JSON file beside it has all numbers.
    """
    from hard_ray import api

    written = api.compare(runs, to=to)
    for warning in written.comparison.warnings:
        errors.print(f"[yellow]warning:[/yellow] {escape(warning)}", highlight=False, soft_wrap=True)
    for title, (header, body) in tables_of(written.comparison).items():
        print_table(console, title, header, body)
    made = written.comparison
    for line in (*made.states, *made.cautions, f"page     {written.page}", f"numbers  {written.numbers}"):
        say(line)


def tables_of(comparison: Comparison) -> dict[str, Table]:
    """The tables of results, of differing keys and of t-tests, by title; empty ones are left out."""
    from hard_ray.reports.comparison.tables import differences, results, t_tests
    from hard_ray.runs.scores import MEASURES, short

    header, body = results(comparison)
    narrow = [[cell.replace(" (", "\n(") for cell in row] for row in body]
    measure = comparison.measure
    what = "top-1, agreement and calibration error" if measure == "top1" else MEASURES[measure]
    shown = {
        f"{what} in %; of several seeds the mean and the range": (header, narrow),
        "differences of the configurations": differences(comparison),
        f"differences of {short(measure)} in points, by t-tests over seeds": t_tests(comparison),
    }
    return {title: table for title, table in shown.items() if table[1]}
