"""`hardray report`: a page with a run's results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ..terminal import console, readable_errors


def report(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    to: Annotated[Path | None, typer.Option("--to", help="The HTML file; by default RUN/report.html.")] = None,
) -> None:
    """Write a page with the results, curves, pictures and configuration of a run.

    From the run folder alone, while the run goes on or after it.
    """
    from hard_ray import api

    with readable_errors():
        console.print(escape(str(api.report(run, to=to))), highlight=False, soft_wrap=True)
