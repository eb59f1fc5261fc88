"""A run in MLflow on PostgreSQL, through a server that keeps the files: what was sent can be read back."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from hard_ray.config.layers import dotted_values
from hard_ray.files import read_json, write_json
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.log import read_points
from tests.support.helpers import finished_run, tiny_config
from tests.support.processes import await_answer, command_lines, end, free_ports, mlflow_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PASSWORD = "hunter2hunter2"
CONFIG = tiny_config("tracking.enabled=true", "experiment.controls=[kd]", "tracking.gallery_images=2")


@dataclass(frozen=True)
class Server:
    """MLflow over HTTP."""

    uri: str
    artifacts: Path
    """Where it keeps files; nothing but the server knows the path."""
    database: str


def postgres_programs() -> Path:
    """Where initdb and postgres are."""
    there = [*sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")), Path(shutil.which("initdb") or "/none")]
    found = [path.parent for path in there if path.exists() and (path.parent / "postgres").exists()]
    if not found:
        pytest.skip("PostgreSQL is not installed (initdb and postgres)")
    return found[-1]


def as_user() -> tuple[list[str], int | None]:
    """How to start PostgreSQL, which refuses to run as root; and the user whose files it needs."""
    if os.geteuid() != 0:
        return [], None
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"], user.pw_uid
    pytest.skip("PostgreSQL does not run as root, and there is no user postgres or nobody")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A new PostgreSQL on loopback; its address, with the password."""
    programs, (before, user) = postgres_programs(), as_user()
    place = Path(tempfile.mkdtemp(prefix="hpg", dir="/tmp"))
    (place / "password").write_text(PASSWORD)
    if user is not None:
        os.chown(place, user, -1)
        os.chown(place / "password", user, -1)
    (port,) = free_ports(1)
    made = subprocess.run(
        [
            *before,
            str(programs / "initdb"),
            "-D",
            str(place / "db"),
            "-U",
            "hardray",
            "--auth=scram-sha-256",
            f"--pwfile={place / 'password'}",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=place,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    with (place / "log").open("w") as log:
        process = subprocess.Popen(
            [
                *before,
                str(programs / "postgres"),
                "-D",
                str(place / "db"),
                "-p",
                str(port),
                "-k",
                str(place),
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "fsync=off",
                "-c",
                "shared_buffers=16MB",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=place,
        )
        try:
            await_answer(lambda: listens(port), process, (place / "log").read_text, seconds=60)
            yield f"postgresql+psycopg2://hardray:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            end(process)
            shutil.rmtree(place, ignore_errors=True)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def server(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("mlflow")
    (port,) = free_ports(1)
    uri = f"http://127.0.0.1:{port}"
    with mlflow_server(place, port, {"MLFLOW_BACKEND_STORE_URI": database}) as process:
        started = [*psutil.Process(process.pid).cmdline(), *command_lines(process.pid).values()]
        assert PASSWORD not in str(started)
        yield Server(uri, place / "kept", database)


@pytest.fixture(scope="module")
def synced(server: Server, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run, that was sent to MLflow afterwards, twice."""
    folder = finished_run(CONFIG, tmp_path_factory.mktemp("runs") / "one")
    for part in (folder, RunFolder(folder.path / "controls" / "kd")):
        part.config.write_text(folder.config.read_text())
        write_json(part.outcome, {"status": "finished"})
    hardray = str(Path(sys.executable).with_name("hardray"))
    for _ in range(2):
        done = subprocess.run(
            [hardray, "sync", str(folder.path)],
            env={**os.environ, "MLFLOW_TRACKING_URI": server.uri},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("is up to date") == 2
    return folder


def test_parent_and_child_their_parameters_and_every_point_can_be_read_back(server: Server, synced: RunFolder):
    from mlflow import MlflowClient

    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("hardray")
    assert experiment is not None
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(found) == {"one", "one/kd"}
    assert found["one/kd"].data.tags["mlflow.parentRunId"] == found["one"].info.run_id
    wanted = {
        key: str(value) for key, value in dotted_values(CONFIG.model_dump(mode="json"), empty_blocks=True).items()
    }
    for name, folder in (("one", synced), ("one/kd", RunFolder(synced.path / "controls" / "kd"))):
        run = found[name]
        assert run.info.status == "FINISHED"
        assert run.data.params == wanted
        logged = [point for _, point in read_points(folder.metrics) if "train/loss" in point]
        assert len(logged) == 20
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert sorted((item.step, item.value) for item in history) == [
            (point["step"], pytest.approx(point["train/loss"], rel=1e-12)) for point in logged
        ]


def test_files_went_through_the_server_and_lie_where_it_keeps_them(server: Server, synced: RunFolder, tmp_path: Path):
    from mlflow import MlflowClient

    client, sent = MlflowClient(server.uri), read_json(synced.tracking)
    run = client.get_run(sent["run_id"])
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    assert str(server.artifacts) not in str(sent)
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"config.yaml", "metrics.jsonl", "summary.json", "gallery"} <= names
    kept = {path.name: path for path in server.artifacts.rglob("*") if path.is_file()}
    assert kept["summary.json"].read_bytes() == synced.summary.read_bytes()
    assert {"metrics.jsonl", "config.yaml"} <= set(kept)
    again = client.download_artifacts(run.info.run_id, "config.yaml", str(tmp_path))
    assert Path(again).read_bytes() == synced.config.read_bytes()


def test_the_trained_model_can_be_loaded_from_the_server(server: Server, synced: RunFolder):
    import mlflow
    import numpy as np

    (logged,) = mlflow.MlflowClient(server.uri).search_logged_models(
        [mlflow.MlflowClient(server.uri).get_experiment_by_name("hardray").experiment_id]
    )
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(server.uri)
    try:
        model = mlflow.pyfunc.load_model(f"models:/{logged.model_id}")
    finally:
        mlflow.set_tracking_uri(before)
    logits = model.predict(np.zeros((3, 1, 16, 16), dtype=np.float32))
    assert np.asarray(logits).shape == (3, 10)


def test_it_is_postgresql_that_holds_the_points(server: Server, synced: RunFolder):
    psycopg2 = pytest.importorskip("psycopg2")
    connection = psycopg2.connect(server.database.replace("+psycopg2", ""))
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM metrics WHERE key = 'train/loss'")
            assert cursor.fetchone() == (40,)
    finally:
        connection.close()
