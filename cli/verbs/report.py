"""`hardray report`: a page about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import path_or_url
from ..terminal import say


def report(
    run: Annotated[Path, typer.Argument(help="A run folder or its URL.", parser=path_or_url)],
    to: Annotated[Path | None, typer.Option(help="The HTML file; by default RUN/report.html.")] = None,
) -> None:
    """Write a page with the results, curves, pictures and configuration of a run.

    Only the run folder is read; the run may still be going on.
    """
    from hard_ray import api

    say(str(api.report(run, to=to)))
