"""`hardray gallery`: pictures of what an augmentor does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import path_or_url
from ..terminal import say


def gallery(
    run: Annotated[Path, typer.Argument(help="A run folder or its URL.", parser=path_or_url)],
    to: Annotated[Path | None, typer.Option(help="Folder for the pictures; by default RUN/gallery.")] = None,
) -> None:
    """Draw what the augmentor does, and how it changed.

    Only the run folder is read; the run may still be going on.
    """
    from hard_ray import api

    for path in api.gallery(run, to=to):
        say(str(path))
