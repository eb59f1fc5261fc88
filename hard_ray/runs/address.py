"""Where a run is recorded, and one use of that address before training starts."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hard_ray.config.records import TrackingConfig
from hard_ray.redaction import without_password
from hard_ray.runs.address_errors import explained
from hard_ray.runs.experiment import find_experiment
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.local_database import SQLITE, TrackingError, check_database, database_of
from hard_ray.runs.mlflow_client import mlflow_client, mlflow_settings, within

VARIABLE = "MLFLOW_TRACKING_URI"
CHECK_SERVER_S = 15.0
CHECK_DATABASE_S = 90.0
"""Longest time of a check; a new database takes seconds, more on a busy machine."""
IGNORED = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID")
"""Variables of MLflow's own scripts that a run does not follow."""
DATABASES = ("mysql", "mssql", "postgresql", "postgres")


def default_uri(runs: Path) -> str:
    """The sqlite database that all runs in a folder share."""
    return f"{SQLITE}{runs / 'mlflow.db'}"


def tracking_uri(config: TrackingConfig, folder: RunFolder) -> str:
    """The configured server, else MLFLOW_TRACKING_URI, else the database beside the run; paths in it are absolute."""
    return _address(config, folder.path.parent)


def _address(config: TrackingConfig, runs: Path) -> str:
    uri = (config.uri or "").strip() or os.environ.get(VARIABLE, "").strip()
    database = database_of(uri) if uri else None
    if database is not None:
        query = "".join(uri.partition("?")[1:])
        return f"{SQLITE}{database.expanduser().absolute()}{query}"
    return uri or default_uri(runs.expanduser().resolve())


def check_address(config: TrackingConfig, runs: Path, *, create: bool = False) -> str:
    """Use the address of MLflow as training will use it, and say what was found.

    Args:
        config: the address and the name of the experiment.
        runs: the folder that will hold the run's folder.
        create: make the database and the experiment, as a run does; else nothing is created, and a sqlite file is
            examined without MLflow's import.

    Raises:
        UnreachableError: it does not answer now; a run can go on, and be sent later.
        TrackingError: it cannot be used as it is; the message says what to do.
    """
    if not config.enabled:
        return "nothing is recorded in MLflow (tracking.enabled=false)"
    uri = _address(config, runs)
    shown = without_password(uri)
    came_from = "tracking.uri" if (config.uri or "").strip() else VARIABLE
    _refuse_form(uri, shown, came_from, is_default=uri == default_uri(runs.expanduser().resolve()))
    database = database_of(uri)
    found = check_database(database) if database is not None else shown
    if database is None or create:
        with mlflow_settings():
            _use(uri, shown, config, create=create)
    return f"{found}, experiment {config.experiment!r}"


def ignored_variables() -> list[str]:
    """A sentence for each variable of MLflow that is set and not followed."""
    return [
        f"{name} is set, and not followed: hardray makes its own runs, in the experiment tracking.experiment"
        for name in IGNORED
        if os.environ.get(name)
    ]


def _refuse_form(uri: str, shown: str, came_from: str, *, is_default: bool) -> None:
    """Refuse an address whose form says that it cannot be one."""
    scheme = uri.partition(":")[0].partition("+")[0].lower() if re.match(r"[A-Za-z][\w+.-]*:", uri) else ""
    if scheme == "sqlite":
        _refuse_database(uri, shown, came_from, is_default=is_default)
        return
    if scheme in ("http", "https"):
        if not re.match(r"https?://[^/\s]+", uri) or "#" in uri or re.search(r"\s", uri):
            raise TrackingError(
                f"{came_from} is {shown}, which is not the address of a server; give it as http://HOST:PORT, without "
                "the part after # that a browser shows"
            )
        return
    if scheme in DATABASES or scheme in ("databricks", "databricks-uc", "uc") or uri in ("databricks", "databricks-uc"):
        return
    if (scheme in ("", "file") or re.match(r"[A-Za-z]:[\\/]", uri)) and not _allows_files():
        raise TrackingError(
            f"{came_from} is {shown}, a folder: MLflow records in folders no more; use a database, {SQLITE}/FOLDER/"
            "mlflow.db, or the http:// address of a server"
        )
    if scheme not in ("", "file"):
        guess = f"; for a server it is http://{shown}" if re.fullmatch(r"[\w.-]+:\d+/?", uri) else ""
        raise TrackingError(
            f"{came_from} is {shown}, and MLflow has nothing that {scheme}: names{guess}; use http://HOST:PORT, "
            f"https://HOST or {SQLITE}/FOLDER/mlflow.db"
        )


def _refuse_database(uri: str, shown: str, came_from: str, *, is_default: bool) -> None:
    database = database_of(uri)
    if database is None:
        raise TrackingError(
            f"{came_from} is {shown}, which names no file that is kept; write {SQLITE}/FOLDER/mlflow.db"
        )
    # the driver of a database cuts an address at ? and decodes %41: the file would lie elsewhere
    if unquote(str(database)) != str(database) or (is_default and "?" in uri):
        raise TrackingError(
            f"the folder of {shown} has ? or % in its name, which the address of a database cannot hold; choose "
            f"another folder, or give another address as tracking.uri or {VARIABLE}"
        )


def _allows_files() -> bool:
    return os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").strip().lower() in ("true", "1")


def _use(uri: str, shown: str, config: TrackingConfig, *, create: bool) -> None:
    """Read, find or make the experiment, and ask for its runs, as a follower does."""

    def call() -> None:
        if urlsplit(uri).scheme.partition("+")[0] in DATABASES:
            from hard_ray.runs.experiment import connect_once

            connect_once(uri)
        client = mlflow_client(uri)
        client.search_experiments(max_results=1)
        number = find_experiment(client, config.experiment, uri, create=create)
        if number is not None:
            client.search_runs([number], filter_string="tags.`hardray.id` = 'none'", max_results=1)

    try:
        within(CHECK_SERVER_S if uri.startswith("http") else CHECK_DATABASE_S, call, what=f"MLflow at {shown}")
    except TrackingError:
        raise
    except Exception as error:  # client, driver and network raise errors of any kind
        raise explained(error, uri, shown) from None
