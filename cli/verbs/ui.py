"""`hardray ui`: open MLflow."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ..options import path_or_url, shown
from ..terminal import console


def ui(
    runs: Annotated[
        Path,
        typer.Option(
            help="The folder that holds the run folders, or its URL: what this machine recorded of it.",
            parser=path_or_url,
        ),
    ] = Path("runs"),
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
    from hard_ray.storage.address import Remote, is_url
    from hard_ray.storage.mirror import working_copy

    of_url = is_url(runs)
    run = working_copy(Remote.parse(runs) / "any") if of_url else runs.expanduser().resolve() / "any"
    uri = tracking_uri(TrackingConfig(), RunFolder(run))
    if uri.startswith("http"):
        console.print(f"runs are recorded at the server of MLFLOW_TRACKING_URI: {escape(without_password(uri))}")
        return
    database = database_of(uri)
    if database is not None:
        if not database.is_file():
            if os.environ.get("MLFLOW_TRACKING_URI"):
                problem = f"the variable MLFLOW_TRACKING_URI names no {database.name}"
            elif of_url:
                problem = f"this machine has recorded no run below {shown(runs)} in MLflow"
            else:
                problem = f"{runs} holds no {database.name}"
            raise RunFolderError(f"{problem}; give the folder of your runs with --runs")
        check_database(database)
        relocate(database)  # the folder may have been moved
    console.print(f"MLflow on http://{host}:{port} (Ctrl-C ends it)", highlight=False)
    # it would start seven processes for features that are not used here
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    os.environ["MLFLOW_BACKEND_STORE_URI"] = uri  # a password in it would show in the list of processes as an option
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port)]
    os.execv(sys.executable, command)  # noqa: S606
