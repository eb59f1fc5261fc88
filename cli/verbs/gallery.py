"""`hardray gallery`: pictures of what the augmentor does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ..terminal import console, readable_errors


def gallery(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    to: Annotated[Path | None, typer.Option("--to", help="Folder for the pictures; by default RUN/gallery.")] = None,
) -> None:
    """Draw what the augmentor does, and how it changed.

    From the run folder alone, while the run goes on or after it.
    """
    from hard_ray import api

    with readable_errors():
        for path in api.gallery(run, to=to):
            console.print(escape(str(path)), highlight=False, soft_wrap=True)
