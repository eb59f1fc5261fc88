"""MLflow's client, as every part of hardray uses it: bounded in time, and without a trace in the caller's process."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hard_ray.errors import readable
from hard_ray.redaction import masked
from hard_ray.runs.local_database import TrackingError, UnreachableError, database_of, relocate

if TYPE_CHECKING:
    from mlflow import MlflowClient

Result = TypeVar("Result")

VARIABLES = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Settings that the caller may have chosen otherwise."""
FIXED = {
    # a request that makes something must not be repeated by the client: the follower asks first what is there
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",  # a request that fails later would count as sent
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Settings on which it depends that nothing is lost or sent twice, or that a run's lines stay readable."""
LOGGERS = ("mlflow", "alembic")


class _Settings:
    """The process's settings for MLflow while any thread uses it; the last one out puts the caller's back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: dict[str, str | None] = {}
        self._ours: dict[str, str] = {}
        self._levels: dict[str, int] = {}

    def enter(self) -> None:
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            kept = {name: value for name, value in VARIABLES.items() if name not in os.environ}
            self._ours = {**kept, **FIXED}
            self._before = {name: os.environ.get(name) for name in self._ours}
            os.environ.update(self._ours)
            self._levels = {name: logging.getLogger(name).level for name in LOGGERS}
            for name in LOGGERS:
                logging.getLogger(name).setLevel(logging.WARNING)

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users:
                return
            for name, value in self._before.items():
                if os.environ.get(name) != self._ours[name]:
                    continue  # the caller has changed it meanwhile
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
            for name, level in self._levels.items():
                logging.getLogger(name).setLevel(level)


_SETTINGS = _Settings()


@contextmanager
def mlflow_settings() -> Iterator[None]:
    """Set what MLflow reads from the environment, and put the caller's values back afterwards."""
    _SETTINGS.enter()
    try:
        yield
    finally:
        _SETTINGS.leave()


_FILES: dict[str, tuple[int, int]] = {}
"""Device and inode of each local database that this process has used."""


def mlflow_client(uri: str) -> MlflowClient:
    """A client of one address; a local database that was moved finds its files first. Use it in `mlflow_settings`."""
    from mlflow import MlflowClient
    from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

    database = database_of(uri)
    if database is not None:
        _forget_removed(uri, database)
        if relocate(database):
            _artifact_repos_cache.clear()  # MLflow remembers by run where the files were
    return MlflowClient(tracking_uri=uri)


def _forget_removed(uri: str, database: Path) -> None:
    """Let MLflow open a database anew that was removed or replaced: it would go on writing to the file that is gone."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.tracking._tracking_service.registry import TrackingStoreRegistry
    from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

    found = database.stat() if database.exists() else None
    present = None if found is None else (found.st_dev, found.st_ino)
    if uri in _FILES and _FILES[uri] != present:
        TrackingStoreRegistry._get_store_with_resolved_uri.cache_clear()
        _artifact_repos_cache.clear()
        engine = SqlAlchemyStore._engine_map.pop(uri, None)
        if engine is not None:
            engine.dispose()
        del _FILES[uri]
    if present is not None:
        _FILES[uri] = present


def within(seconds: float, call: Callable[[], Result], *, what: str) -> Result:
    """The result of a call in a thread; UnreachableError: it took longer. What the call raises is raised."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # raised again in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=run, name="mlflow-check", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise UnreachableError(f"{what} did not answer within {seconds:g} s; start it, or correct the address")
    return results[0]


def readable_problem(error: BaseException) -> str:
    """One line about an error, without passwords."""
    if isinstance(error, TrackingError):
        return masked(str(error))
    return masked(readable(error))


def status_of(error: BaseException) -> int | None:
    """The HTTP status of an answer that was no JSON, as a proxy or another web server gives; None: it is unknown."""
    found = re.search(r"(?:failed with error code|too many) (\d{3})\b", str(error))
    return int(found[1]) if found else None


def is_missing(error: BaseException) -> bool:
    """Whether MLflow itself says that it has no such run or experiment; another server's 404 does not say so."""
    is_coded = getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"
    return is_coded and status_of(error) is None
