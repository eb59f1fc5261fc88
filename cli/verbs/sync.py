"""`hardray sync`: send the rest of a run to MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import say


def sync(run: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Send to MLflow what a run could not send."""
    from hard_ray import api

    api.sync(run, say=say)
