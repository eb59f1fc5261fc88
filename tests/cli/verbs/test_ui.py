"""`hardray ui` opens the database of a folder of runs, also one that was moved."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from hard_ray.runs.folder import RunFolder
from hard_ray.runs.tracking import Follower, tracking_uri
from hard_ray.storage.address import Remote
from hard_ray.storage.mirror import working_copy
from tests.cli.commands import invoke
from tests.runs.test_tracking import CONFIG, folder_at
from tests.support.processes import await_answer, end, free_ports


def test_ui_without_runs_says_what_to_give(tmp_path: Path):
    done = invoke("ui", "--runs", str(tmp_path))
    assert done.exit_code == 1
    assert "holds no mlflow.db" in done.stderr


def test_runs_at_urls_in_one_folder_have_one_database_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HARDRAY_CACHE", str(tmp_path / "cache"))
    url = f"file://{tmp_path}/bucket/runs"
    done = invoke("ui", "--runs", url)
    assert done.exit_code == 1
    assert f"this machine has recorded no run below {url} in MLflow" in " ".join(done.stderr.split())
    one, two = (RunFolder(working_copy(Remote.parse(f"{url}/{name}"))) for name in ("one", "two"))
    uri = tracking_uri(CONFIG.tracking, one)
    assert tracking_uri(CONFIG.tracking, two) == uri
    Follower(folder_at(one.path), CONFIG, "one", uri).sync()
    for variable in ("MLFLOW_BACKEND_STORE_URI", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION"):  # the command sets them
        monkeypatch.setenv(variable, "false")
    started: list[str] = []
    monkeypatch.setattr(os, "execv", lambda *_: started.append(os.environ["MLFLOW_BACKEND_STORE_URI"]))
    assert invoke("ui", "--runs", url).exit_code == 0
    assert started == [uri]


def test_ui_says_what_a_database_is_that_is_not_mlflows(tmp_path: Path):
    (tmp_path / "mlflow.db").write_text("no database" * 100)
    done = invoke("ui", "--runs", str(tmp_path))
    assert done.exit_code == 1
    assert "the file is no sqlite database" in " ".join(done.stderr.split())


def answers(address: str) -> bool:
    try:
        urlopen(f"{address}/health", timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.slow
def test_a_file_of_a_moved_folder_can_be_downloaded_from_its_page(tmp_path: Path):
    run = folder_at(tmp_path / "before" / "one")
    made = Follower(run, CONFIG, "one", tracking_uri(CONFIG.tracking, run))
    made.sync()
    shutil.move(tmp_path / "before", tmp_path / "after")
    (port,) = free_ports(1)
    hardray = str(Path(sys.executable).with_name("hardray"))
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [hardray, "ui", "--runs", str(tmp_path / "after"), "--port", str(port)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        try:
            address = f"http://127.0.0.1:{port}"
            await_answer(lambda: answers(address), process, (tmp_path / "log").read_text)
            with urlopen(f"{address}/get-artifact?path=config.yaml&run_uuid={made.run_id}", timeout=30) as answer:
                assert answer.read() == (tmp_path / "after" / "one" / "config.yaml").read_bytes()
        finally:
            end(process)
    assert not (tmp_path / "before").exists()
