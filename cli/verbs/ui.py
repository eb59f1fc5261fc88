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
    from hard_ray.config.records import TrackingConfig
    from hard_ray.errors import RunFolderError
    from hard_ray.redaction import without_password
    from hard_ray.runs.folder import RunFolder
    from hard_ray.runs.local_database import check_database, database_of, relocate
    from hard_ray.runs.tracking import tracking_uri

    uri = tracking_uri(TrackingConfig(), RunFolder(runs.expanduser().resolve() / "any"))
    if uri.startswith("http"):
        console.print(f"runs are recorded at the server of MLFLOW_TRACKING_URI: {escape(without_password(uri))}")
        return
    database = database_of(uri)
    if database is not None:
        if not database.is_file():
            named = (
                "the variable MLFLOW_TRACKING_URI names" if os.environ.get("MLFLOW_TRACKING_URI") else f"{runs} holds"
            )
            raise RunFolderError(f"{named} no {database.name}; give the folder of your runs with --runs")
        check_database(database)
        relocate(database)  # the folder may have been moved
    console.print(f"MLflow on http://{host}:{port} (Ctrl-C ends it)", highlight=False)
    # it would start seven processes for features that are not used here
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    os.environ["MLFLOW_BACKEND_STORE_URI"] = uri  # a password in it would show in the list of processes as an option
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port)]
    os.execv(sys.executable, command)  # noqa: S606
