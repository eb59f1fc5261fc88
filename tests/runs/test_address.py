"""The address of MLflow is used before a training starts: what it is, and what to do, is said then."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hard_ray.config.loader import load_config
from hard_ray.config.records import TrackingConfig
from hard_ray.errors import ConfigError
from hard_ray.orchestration.run.follow import use_address
from hard_ray.runs import address, local_database
from hard_ray.runs.address import check_address, ignored_variables
from hard_ray.runs.local_database import TrackingError, UnreachableError, artifact_folder


def config(uri: str | None = None, experiment: str = "hardray") -> TrackingConfig:
    return TrackingConfig(experiment=experiment).model_copy(update={"uri": uri})


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("./mlruns", "a folder"),
        ("file:///tmp/mlruns", "a folder"),
        ("C:\\mlruns", "a folder"),
        ("htp://host:5000", "nothing that htp: names"),
        ("localhost:5000", "for a server it is http://localhost:5000"),
        ("sqlite://", "names no file that is kept"),
        ("sqlite:///", "names no file that is kept"),
        ("sqlite:///:memory:", "names no file that is kept"),
        ("sqlite:/runs/x.db", "names no file that is kept"),
        ("http://", "not the address of a server"),
        ("http://host:5000/#/experiments/1", "the part after #"),
        ("https://two words", "not the address of a server"),
        ("postgresql+nodriver://u:hunter2@127.0.0.1:9/x", "cannot be used"),
    ],
)
def test_a_form_that_cannot_be_is_refused_with_what_to_write(tmp_path: Path, uri: str, said: str):
    with pytest.raises(TrackingError) as caught:
        check_address(config(uri), tmp_path)
    assert said in str(caught.value)
    assert any(remedy in str(caught.value) for remedy in ("http://HOST", "sqlite:///", "tracking.uri"))
    assert "hunter2" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_variable_is_named_where_it_is_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", " ./mlruns ")
    with pytest.raises(TrackingError, match=r"^MLFLOW_TRACKING_URI is ./mlruns, a folder"):
        check_address(config(), tmp_path)


@contextmanager
def web_server(status: int, body: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "said", "may_answer_later"),
    [
        (404, b"<html>nginx</html>", "is a web server, but not MLflow's (status 404)", False),
        (200, b"<html>Welcome</html>", "is a web server, but not MLflow's", False),
        (404, b'{"detail":"Not Found"}', "is a web server, but not MLflow's", False),
        (405, b"", "is a web server, but not MLflow's (status 405)", False),
        (401, b"You are not authenticated", "MLFLOW_TRACKING_USERNAME", False),
        (403, b'{"error_code":"PERMISSION_DENIED","message":"no"}', "MLFLOW_TRACKING_PASSWORD", False),
        (403, b"Invalid Host header - possible DNS rebinding attack detected", "--allowed-hosts", False),
        (503, b"starting", "answers with an error (503)", True),
        (502, b"<html>bad gateway</html>", "answers with an error (502)", True),
    ],
)
def test_what_answers_is_said(tmp_path: Path, status: int, body: bytes, said: str, may_answer_later: bool):
    with web_server(status, body) as uri, pytest.raises(TrackingError) as caught:
        check_address(config(uri), tmp_path)
    assert said in str(caught.value)
    assert isinstance(caught.value, UnreachableError) is may_answer_later


def test_http_is_no_https(tmp_path: Path):
    with web_server(200, b"{}") as uri, pytest.raises(TrackingError, match="speaks no TLS; write http://"):
        check_address(config(uri.replace("http:", "https:")), tmp_path)


@pytest.mark.parametrize(
    ("uri", "said"),
    [("http://127.0.0.1:9", "connection refused"), ("http://me:hunter2@nohost.invalid:5000", "no such host")],
)
def test_what_does_not_answer_may_do_so_later(tmp_path: Path, uri: str, said: str):
    with pytest.raises(UnreachableError) as caught:
        check_address(config(uri), tmp_path)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)
    lines: list[str] = []
    use_address(config(uri), tmp_path, lines.append)
    assert "training goes on, and `hardray sync` sends the run later" in lines[0]


def test_silence_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import socket

    monkeypatch.setattr(address, "CHECK_SERVER_S", 0.5)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(5)
        with pytest.raises(UnreachableError, match=r"did not answer within 0.5 s"):
            check_address(config(f"http://127.0.0.1:{server.getsockname()[1]}"), tmp_path)


def test_a_mistake_is_refused_for_a_new_run_and_only_said_for_one_that_goes_on(tmp_path: Path):
    with pytest.raises(TrackingError):
        use_address(config("./mlruns"), tmp_path, lambda _: None)
    lines: list[str] = []
    use_address(config("./mlruns"), tmp_path, lines.append, goes_on=True)
    assert "a folder" in lines[0]
    use_address(config("./mlruns").model_copy(update={"enabled": False}), tmp_path, lines.append)
    assert len(lines) == 1


def test_variables_that_are_not_followed_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "other")
    assert [line.partition(" ")[0] for line in ignored_variables()] == ["MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of the installed MLflow, as the check of a new run makes it."""
    runs = tmp_path_factory.mktemp("made") / "runs"
    found = check_address(config(), runs, create=True)
    assert found == f"the new sqlite database {runs / 'mlflow.db'}, experiment 'hardray'"
    return runs / "mlflow.db"


def test_without_create_nothing_is_made_and_a_relative_path_is_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///deep/own.db")
    assert str(tmp_path / "deep" / "own.db") in check_address(config(), tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


def test_a_database_is_examined_without_mlflows_import(made: Path, tmp_path: Path):
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from hard_ray.config.records import TrackingConfig\n"
        "from hard_ray.runs.tracking import check_address\n"
        f"print(check_address(TrackingConfig(), Path({str(made.parent)!r})), 'mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == f"the sqlite database {made}, experiment 'hardray' False", done.stderr


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE alembic_version SET version_num = 'ffffffffffff'", "written by a newer MLflow"),
        ("UPDATE alembic_version SET version_num = '0584bdc529eb'", "mlflow db upgrade sqlite:///"),
        ("DROP TABLE alembic_version", "of something else than MLflow"),
    ],
)
def test_tables_of_another_version_are_named(made: Path, tmp_path: Path, statement: str, said: str):
    other = tmp_path / "other.db"
    shutil.copy(made, other)
    connection = sqlite3.connect(other)
    connection.execute(statement)
    connection.commit()
    connection.close()
    with pytest.raises(TrackingError, match=said):
        check_address(config(f"sqlite:///{other}"), tmp_path, create=True)


def test_a_file_that_is_no_database_and_one_in_a_file_are_named(tmp_path: Path):
    (tmp_path / "text.db").write_text("no database " * 100)
    with pytest.raises(TrackingError, match="the file is no sqlite database"):
        check_address(config(f"sqlite:///{tmp_path / 'text.db'}"), tmp_path)
    with pytest.raises(TrackingError, match="is not a writable folder"):
        check_address(config(f"sqlite:///{tmp_path / 'text.db' / 'x.db'}"), tmp_path)
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(TrackingError, match="is not a file that can be written"):
        check_address(config(f"sqlite:///{tmp_path / 'folder.db'}"), tmp_path)


def test_a_folder_that_is_read_only_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode & os.W_OK == 0)  # root may write anywhere
    with pytest.raises(TrackingError, match="is not a writable folder; give another address as tracking.uri"):
        check_address(config(), tmp_path)


def test_a_database_that_stays_locked_may_be_free_later(made: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local_database, "LOCK_PATIENCE_S", 0.2)
    holder = sqlite3.connect(made, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(UnreachableError, match="locked by another process"):
            check_address(config(), made.parent)
    finally:
        holder.execute("ROLLBACK")
        holder.close()


def test_a_deleted_experiment_is_one_sentence_with_restore(made: Path, tmp_path: Path):
    from mlflow import MlflowClient

    uri = f"sqlite:///{made}"
    check_address(config(uri, "gone"), tmp_path, create=True)
    client = MlflowClient(uri)
    number = client.get_experiment_by_name("gone").experiment_id
    client.delete_experiment(number)
    with pytest.raises(TrackingError, match=f"mlflow experiments restore --experiment-id {number}"):
        check_address(config(uri, "gone"), tmp_path, create=True)
    client.restore_experiment(number)
    check_address(config(uri, "gone"), tmp_path, create=True)


NAMES = (
    "/Shared/x",
    "../x",
    "../../etc/x",
    "a b/c",
    "naïve 名",
    'it\'s "quoted" `so`',
    ".hidden",
    "x" * 250,
    "100%",
    "..",
)


def test_names_of_experiments_are_names_and_never_paths(made: Path, tmp_path: Path):
    from mlflow import MlflowClient

    before = set(made.parent.rglob("*"))
    uri = f"sqlite:///{made}"
    for name in NAMES:
        check_address(config(uri, name), tmp_path, create=True)
        found = MlflowClient(uri).get_experiment_by_name(name)
        assert found is not None
        assert Path(found.artifact_location.removeprefix("file://")).name != ""
    places = {artifact_folder(made, name) for name in NAMES}
    assert len(places) == len(NAMES)
    assert {place.parent for place in places} == {made.parent / "mlartifacts"}
    assert set(made.parent.rglob("*")) - before == places
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["what?", "100%41"])
def test_a_folder_that_an_address_cannot_hold_is_refused(tmp_path: Path, name: str):
    with pytest.raises(TrackingError, match=r"has \? or % in its name.+choose another folder"):
        check_address(config(), tmp_path / name, create=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a#b", "100%", "it's", "naïve 名", "a;b&c=d:e"])
def test_other_folders_are_taken_as_they_are_called(made: Path, tmp_path: Path, name: str):
    (tmp_path / name).mkdir()
    shutil.copy(made, tmp_path / name / "mlflow.db")
    check_address(config(experiment="new"), tmp_path / name, create=True)
    assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["mlartifacts", "mlflow.db"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["", "  ", "x" * 251, "two\nlines"])
def test_a_name_that_mlflow_cannot_keep_is_refused_by_its_key(name: str):
    with pytest.raises(ConfigError, match=r"tracking.experiment: an experiment of MLflow needs a name of 1 to 250"):
        load_config(preset="digits", overrides=[f"tracking.experiment={name!r}".replace("'", '"').replace("\n", "\\n")])
