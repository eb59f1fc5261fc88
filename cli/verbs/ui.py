"""`hardray ui`: open MLflow."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ..terminal import console


def ui(
    runs: Annotated[Path, typer.Option(help="The folder that holds the run folders.")] = Path("runs"),
    host: Annotated[str, typer.Option(help="Interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 5000,
) -> None:
    """Open MLflow on the runs of a folder."""
    from hard_ray.errors import RunFolderError
    from hard_ray.redaction import without_password
    from hard_ray.runs.tracking import default_uri

    database = runs.expanduser().resolve() / "mlflow.db"
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri and uri.startswith("http"):
        console.print(f"runs are recorded at the server of MLFLOW_TRACKING_URI: {escape(without_password(uri))}")
        return
    if not database.is_file():
        raise RunFolderError(f"{runs} holds no mlflow.db; give the folder of your runs with --runs")
    console.print(f"MLflow on http://{host}:{port} (Ctrl-C ends it)", highlight=False)
    # it would start seven processes for features that are not used here
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", default_uri(database.parent)]
    os.execv(sys.executable, [*command, "--host", host, "--port", str(port)])  # noqa: S606
