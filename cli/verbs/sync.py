"""`hardray sync`: send the rest of a run or a search to MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import path_or_url
from ..terminal import say


def sync(
    run: Annotated[Path, typer.Argument(help="The folder or URL of a run or a search.", parser=path_or_url)],
) -> None:
    """Send to MLflow what a run or a search could not send, and end it there."""
    from hard_ray import api

    api.sync(run, say=say)
