"""MLflow's sqlite database beside the runs: whether it can be used, and where its files lie after a move."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from hard_ray.errors import HardrayError

SQLITE = "sqlite:///"
ARTIFACTS = "mlartifacts"
"""The folder of files beside a database; each experiment has one in it."""
LOCK_PATIENCE_S = 10.0
LONGEST_FOLDER = 80
"""Characters of an experiment's name that its folder keeps."""


class TrackingError(HardrayError):
    """An address of MLflow that cannot be used as it is."""


class UnreachableError(TrackingError):
    """An address of MLflow that does not answer now."""


def database_of(uri: str) -> Path | None:
    """The file of a sqlite address; None: it names none, or it is another kind of address."""
    if not uri.startswith(SQLITE):
        return None
    file = uri.removeprefix(SQLITE).partition("?")[0]
    return Path(file) if file not in ("", ":memory:") else None


def artifact_folder(database: Path, experiment: str) -> Path:
    """The folder of an experiment's files. The name is no path: what a folder cannot be called is replaced."""
    import hashlib

    safe = re.sub(r"[^\w.-]+", "_", experiment)[:LONGEST_FOLDER].lstrip(".")
    if safe != experiment:
        safe = f"{safe}-{hashlib.sha256(experiment.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    return database.parent / ARTIFACTS / safe


def check_database(database: Path) -> str:
    """Say whether a database can be written, or made; TrackingError: it cannot. Nothing is created or changed."""
    folder = database.parent
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise TrackingError(
            f"MLflow's database {database} cannot be made or written: {existing} is not a writable folder; {REMEDY}"
        )
    if not database.exists():
        return f"the new sqlite database {database}"
    if not database.is_file() or not os.access(database, os.R_OK | os.W_OK):
        raise TrackingError(f"MLflow's database {database} is not a file that can be written; {REMEDY}")
    version = _try(database)
    if version is not None:
        _check_version(database, version)
    return f"the sqlite database {database}"


REMEDY = "give another address as tracking.uri or MLFLOW_TRACKING_URI, allow it, or set tracking.enabled=false"


def _try(database: Path) -> str | None:
    """Take the lock of a write and give it back; returns the version of the tables, None: there are none yet."""
    try:
        with _connected(database) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
            if not tables:
                return None
            if "alembic_version" not in tables:
                raise TrackingError(
                    f"{database} is a sqlite database of something else than MLflow (it has {sorted(tables)[0]!r}); "
                    f"{REMEDY}"
                )
            found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise UnreachableError(
                f"MLflow's database {database} has been locked by another process for {LOCK_PATIENCE_S:g} s; end that "
                f"process, or {REMEDY}"
            ) from None
        reason = str(error).replace("file is not a database", "the file is no sqlite database")
        raise TrackingError(f"MLflow's database {database} cannot be used: {reason}; {REMEDY}") from None
    return None if found is None else str(found[0])


def _check_version(database: Path, version: str) -> None:
    """Compare the version of the tables with those that the installed MLflow knows, without its import."""
    known = _revisions()
    if not known or version == known[-1]:
        return
    if version in known:
        raise TrackingError(
            f"MLflow's database {database} has the tables of an older MLflow (revision {version}), and the installed "
            f"one wants {known[-1]}; copy the file, then run `mlflow db upgrade {SQLITE}{database}`"
        )
    raise TrackingError(
        f"MLflow's database {database} was written by a newer MLflow (revision {version}), which the installed one "
        f"does not know; install that version, or give another address as tracking.uri or MLFLOW_TRACKING_URI"
    )


def _revisions() -> list[str]:
    """Every revision of MLflow's tables, the present one last; empty: this MLflow keeps them elsewhere."""
    spec = importlib.util.find_spec("mlflow")
    place = None if spec is None or spec.origin is None else Path(spec.origin).parent / "store/db_migrations/versions"
    if place is None or not place.is_dir():
        return []
    before: dict[str, list[str]] = {}
    for path in place.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        own = re.search(r"^revision\s*=\s*[\"'](\w+)[\"']", text, re.MULTILINE)
        below = re.search(r"^down_revision\s*=(.*)$", text, re.MULTILINE)
        if own is not None:
            before[own[1]] = re.findall(r"\w{6,}", below[1]) if below is not None else []
    followed = {revision for below in before.values() for revision in below}
    last = [revision for revision in before if revision not in followed]
    return [*(revision for revision in before if revision not in last), *last] if len(last) == 1 else []


@contextlib.contextmanager
def _connected(database: Path) -> Iterator[sqlite3.Connection]:
    address = f"file:{quote(str(database))}?mode=rw"
    connection = sqlite3.connect(address, timeout=LOCK_PATIENCE_S, isolation_level=None, uri=True)
    try:
        yield connection
    finally:
        connection.close()


PLACES = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"))
"""Where MLflow's tables name folders of files."""


def relocate(database: Path) -> int:
    """Let a database that was moved or copied with its folder find its files beside it; returns changed experiments.

    MLflow stores absolute places. An experiment is moved if its place ends as hardray makes them,
    `.../mlartifacts/NAME`, lies elsewhere, and `mlartifacts/NAME` is beside this database.
    """
    if not database.is_file():
        return 0
    with _connected(database) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "experiments" not in tables:
            return 0
        places = connection.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall()
        moved = [(number, old, new) for number, old in places if (new := _new_place(old, database)) is not None]
        if not moved:
            return 0
        connection.execute("BEGIN IMMEDIATE")
        for number, old, new in moved:
            for table, column in PLACES:
                if table in tables:
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608  (names from above)
                        f"WHERE experiment_id = ? AND ({column} = ? OR substr({column}, 1, ?) = ?)",
                        (new, len(old) + 1, number, old, len(old) + 1, f"{old}/"),
                    )
        connection.execute("COMMIT")
    return len(moved)


def _new_place(old: str | None, database: Path) -> str | None:
    """Where an experiment's files lie now; None: they lie where they did, or were never beside the database."""
    if old is None or not old.startswith("file://"):
        return None
    before = Path(unquote(urlsplit(old).path))
    now = database.parent / ARTIFACTS / before.name
    if before.parent.name != ARTIFACTS or before == now or not now.is_dir():
        return None
    if before.is_dir() and before.samefile(now):
        return None
    return now.as_uri()
