"""What others do to a run in MLflow, to its folder and to this process, costs neither the run nor its numbers."""

from __future__ import annotations

import getpass
import json
import logging
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.errors import HardrayError
from hard_ray.files import read_json, write_json
from hard_ray.runs import logged_model
from hard_ray.runs.dataset import dataset_facts
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.search_folder import SearchFolder
from hard_ray.runs.sync import sync
from hard_ray.runs.tracking import Follower
from tests.runs.test_tracking import CONFIG, cover, folder_at, follower, log, steps_sent


@pytest.fixture
def run(tmp_path: Path, empty_database: Path) -> RunFolder:
    made = folder_at(tmp_path / "runs" / "one")
    shutil.copy(empty_database, made.path.parent / "mlflow.db")
    return made


def client_of(made: Follower) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(made.uri)


def covered(run: RunFolder, *steps: int) -> None:
    log(run, *steps)
    cover(run, steps[-1])


def test_parameters_are_sent_though_the_run_was_made_without_them(run: RunFolder):
    """A process that was killed between the two requests left them out for ever."""
    made = follower(run)
    made.sync()
    run_id, key = made.run_id, made.sent.key
    bare = client_of(made).create_run(client_of(made).get_run(run_id).info.experiment_id)
    write_json(run.tracking, {"run_id": bare.info.run_id, "key": key})
    again = follower(run)
    again.sync()
    assert client_of(again).get_run(again.run_id).data.params == client_of(made).get_run(run_id).data.params


def test_a_run_deleted_there_is_made_anew_also_during_training(run: RunFolder):
    lines: list[str] = []
    made = follower(run, say=lines.append)
    covered(run, 1, 2)
    made.sync()
    first = made.run_id
    client_of(made).delete_run(first)
    covered(run, 3, 4)
    made.sync()
    assert made.run_id != first
    assert steps_sent(made) == [1, 2, 3, 4]
    assert f"mlflow runs restore --run-id {first}" in lines[0]
    client_of(made).delete_run(made.run_id)
    write_json(run.outcome, {"status": "finished"})
    later = follower(run)
    later.close("FINISHED")
    assert steps_sent(later) == [1, 2, 3, 4]
    assert client_of(later).get_run(later.run_id).info.status == "FINISHED"


@pytest.mark.parametrize("way", ["removed", "replaced"])
def test_a_database_that_is_removed_during_training_is_begun_anew(run: RunFolder, empty_database: Path, way: str):
    made = follower(run)
    covered(run, 1, 2)
    made.sync()
    first = made.run_id
    made.sync()
    (run.path.parent / "mlflow.db").unlink()
    if way == "replaced":
        shutil.copy(empty_database, run.path.parent / "mlflow.db")
    covered(run, 3, 4)
    made.sync()
    assert made.run_id != first
    assert steps_sent(made) == [1, 2, 3, 4]
    made.close("KILLED")
    import sqlite3

    with sqlite3.connect(run.path.parent / "mlflow.db") as connection:
        assert connection.execute("SELECT run_uuid, status FROM runs").fetchall() == [(made.run_id, "KILLED")]


def test_an_experiment_that_is_renamed_keeps_its_runs_together(run: RunFolder):
    parent = follower(run)
    parent.sync()
    client = client_of(parent)
    number = client.get_run(parent.run_id).info.experiment_id
    client.rename_experiment(number, "another name")
    child = follower(folder_at(run.path / "controls" / "kd"), parent.uri, parent=parent)
    child.sync()
    assert client.get_run(child.run_id).info.experiment_id == number


def test_children_follow_a_parent_that_was_made_anew(run: RunFolder):
    parent = follower(run)
    child = follower(folder_at(run.path / "controls" / "kd"), parent.uri, parent=parent)
    parent.sync()
    child.sync()
    client_of(parent).delete_run(parent.run_id)
    parent.close("KILLED")
    child.sync()
    assert client_of(parent).get_run(child.run_id).data.tags["mlflow.parentRunId"] == parent.run_id


def test_a_deleted_experiment_is_a_sentence_and_the_same_run_goes_on_after_its_restoration(run: RunFolder):
    made = follower(run)
    covered(run, 1, 2)
    made.sync()
    client, first = client_of(made), made.run_id
    number = client.get_run(first).info.experiment_id
    client.delete_experiment(number)
    covered(run, 3, 4)
    with pytest.raises(HardrayError, match=f"mlflow experiments restore --experiment-id {number}"):
        made.sync()
    with pytest.raises(HardrayError, match=f"mlflow experiments restore --experiment-id {number}"):
        sync(run.path, lambda _: None)
    client.restore_experiment(number)
    sync(run.path, lambda _: None)
    again = follower(run)
    assert again.run_id == first
    assert steps_sent(again) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "name", ["../x", "/Shared/x", 'it\'s "quoted"', "naïve 名", "x" * 600, "a\udce9b", "..", "'; --"]
)
def test_names_of_runs_are_names(run: RunFolder, name: str):
    before = set(run.path.parent.parent.rglob("*"))
    made = Follower(run, CONFIG, name, f"sqlite:///{run.path.parent / 'mlflow.db'}")
    covered(run, 1)
    made.sync()
    shown = client_of(made).get_run(made.run_id).data.tags["mlflow.runName"]
    assert shown[:3] == name.encode("utf-8", "backslashreplace").decode()[:3]
    assert len(shown) <= 250
    new = set(run.path.parent.parent.rglob("*")) - before
    assert all(path.is_relative_to(run.path.parent) for path in new)


def test_a_folder_whose_name_is_no_text_is_recorded(tmp_path: Path):
    run = folder_at(tmp_path / os.fsdecode(b"caf\xe9") / "one")
    made = Follower(run, CONFIG, "one", f"sqlite:///{tmp_path / 'mlflow.db'}")
    made.sync()
    assert "\\udce9" in client_of(made).get_run(made.run_id).data.tags["hardray.folder"]


def everything(made: Follower, into: Path) -> dict[str, bytes]:
    """Every file of a run, as MLflow gives it."""
    into.mkdir()
    place = Path(client_of(made).download_artifacts(made.run_id, "", str(into)))
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.mark.parametrize("way", ["moved", "copied"])
def test_a_moved_folder_of_runs_works_and_nothing_is_made_at_the_old_place(
    tmp_path: Path, empty_database: Path, way: str
):
    before, after = tmp_path / "before", tmp_path / "deep" / "after"
    run = folder_at(before / "one")
    shutil.copy(empty_database, before / "mlflow.db")
    covered(run, 1, 2)
    first = follower(run)
    first.sync()
    given = everything(first, tmp_path / "given")
    after.parent.mkdir()
    if way == "moved":
        shutil.move(before, after)
    else:
        shutil.copytree(before, after)
    old = {path: path.read_bytes() for path in before.rglob("*") if path.is_file()}
    moved = RunFolder(after / "one")
    covered(moved, 3, 4)
    write_json(moved.outcome, {"status": "finished"})
    sync(moved.path, lambda _: None)
    again = follower(moved)
    assert again.run_id == first.run_id
    assert steps_sent(again) == [1, 2, 3, 4]
    found = everything(again, tmp_path / "found")
    assert given.items() <= found.items()
    assert "metrics.jsonl" in found
    tags = client_of(again).get_run(again.run_id).data.tags
    assert tags["hardray.folder"] == str(moved.path)
    assert {path: path.read_bytes() for path in before.rglob("*") if path.is_file()} == old
    assert before.exists() is (way == "copied")


def test_a_copied_run_gets_a_run_of_its_own_in_the_same_database(run: RunFolder):
    first = follower(run)
    covered(run, 1, 2)
    first.sync()
    copy = RunFolder(run.path.parent / "two")
    shutil.copytree(run.path, copy.path)
    covered(copy, 3)
    lines: list[str] = []
    other = follower(copy, say=lines.append)
    other.sync()
    assert other.run_id != first.run_id
    assert "is a copy of" in lines[0]
    assert (steps_sent(other), steps_sent(first)) == ([1, 2, 3], [1, 2])
    other.close("KILLED")
    assert read_json(copy.tracking)["run_id"] == other.run_id


def test_a_folder_by_another_name_is_no_other_folder(tmp_path: Path):
    run = folder_at(tmp_path / "runs" / "one")
    first = follower(run)
    first.sync()
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    again = follower(RunFolder(tmp_path / "link" / "one"))
    again.sync()
    place = client_of(again).get_run(again.run_id).info.artifact_uri
    assert place.startswith((tmp_path / "runs").as_uri())


def test_two_addresses_in_turn_keep_a_run_each(run: RunFolder, tmp_path: Path):
    covered(run, 1, 2)
    ids = {}
    for name in ("a", "b", "a", "b"):
        made = follower(run, f"sqlite:///{tmp_path / name}.db")
        made.sync()
        assert ids.setdefault(name, made.run_id) == made.run_id
        assert steps_sent(made) == [1, 2]
    assert ids["a"] != ids["b"]


def test_damaged_marks_are_begun_anew(run: RunFolder):
    covered(run, 1, 2)
    for text in ("{", "[1]", '"x"'):
        run.tracking.write_text(text)
        made = follower(run)
        made.sync()
        assert steps_sent(made) == [1, 2]


def state() -> dict[str, Any]:
    """What MLflow and this process are told, as a caller sees it."""
    import mlflow

    active = mlflow.active_run()
    return {
        "address": mlflow.get_tracking_uri(),
        "active run": active and active.info.run_id,
        "experiment": mlflow.tracking.fluent._get_experiment_id(),
        "variables": dict(os.environ),
        "levels": [logging.getLogger(name).level for name in ("mlflow", "alembic", "")],
    }


@pytest.fixture
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logged_model, "_save", lambda folder, config, path, location, sent: write_model(path))


def write_model(path: Path) -> None:
    path.mkdir()
    (path / "MLmodel").write_text("flavors: {}\n")


@pytest.mark.usefixtures("small_model")
def test_the_callers_mlflow_is_left_as_it_was_with_a_run_open(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import mlflow

    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'callers.db'}")
    mlflow.set_experiment("the caller's")
    try:
        with mlflow.start_run() as own:
            mlflow.log_metric("own", 1.0)
            given = state()
            covered(run, 1, 2)
            run.student.mkdir()
            write_json(run.outcome, {"status": "finished"})
            uri = f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"
            made = follower(run, uri)
            made.close("FINISHED", "text")
            assert state() == given
            with pytest.raises(Exception, match=r".+"):
                follower(folder_at(tmp_path / "other"), "http://127.0.0.1:9").sync()
            assert state() == given
            mlflow.log_metric("own", 2.0)
        assert mlflow.MlflowClient().get_run(own.info.run_id).data.metrics == {"own": 2.0}
        assert steps_sent(made) == [1, 2]
        assert made.sent.model
    finally:
        mlflow.set_tracking_uri("")
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def test_a_variable_that_the_caller_changes_meanwhile_is_left(monkeypatch: pytest.MonkeyPatch):
    from hard_ray.runs.mlflow_client import mlflow_settings

    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
    with mlflow_settings():
        with mlflow_settings():
            assert os.environ["MLFLOW_ENABLE_ASYNC_LOGGING"] == "false"
        assert os.environ["MLFLOW_ENABLE_ASYNC_LOGGING"] == "false"
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "9"
    assert os.environ["MLFLOW_ENABLE_ASYNC_LOGGING"] == "true"
    assert os.environ.pop("MLFLOW_HTTP_REQUEST_MAX_RETRIES") == "9"


def test_who_what_and_the_data_are_recorded(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from hard_ray.data.sources.build import build_index

    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    subprocess.run(["git", "init", "-q"], check=True)
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *who, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    monkeypatch.setattr("sys.argv", ["/anywhere/bin/hardray", "distill"])
    index = build_index(CONFIG.data)
    write_json(run.dataset, dataset_facts(CONFIG.data, index))
    made = follower(run)
    made.sync()
    found = client_of(made).get_run(made.run_id)
    tags = found.data.tags
    assert tags["mlflow.user"] == getpass.getuser()
    assert (tags["mlflow.source.name"], tags["mlflow.source.type"]) == ("hardray distill", "LOCAL")
    assert (tags["mlflow.project.entryPoint"], tags["mlflow.source.git.commit"]) == ("distill", commit)
    (given,) = found.inputs.dataset_inputs
    assert given.dataset.name == "digits"
    assert index.fingerprint().startswith(given.dataset.digest)
    profile = json.loads(given.dataset.profile)
    assert profile["rows"] == {name: len(rows) for name, rows in index.splits.items()}
    assert given.tags[0].value == "training"


def test_pictures_are_a_series_by_step_and_one_that_is_damaged_stops_nothing(run: RunFolder):
    run.gallery.mkdir()
    for step in (0, 40):
        Image.fromarray(np.full((20, 600, 3), step, np.uint8)).save(run.gallery / f"step-{step:08d}.png")
    (run.gallery / "step-00000080.png").write_bytes(b"torn")
    made = follower(run)
    made.sync()
    made.sent.pictures = {}  # as if the process had been killed before it noted them
    made.sync()
    names = sorted(Path(item.path).name for item in client_of(made).list_artifacts(made.run_id, "images"))
    assert [name.split("+")[:3] for name in names] == [["gallery", "step", step] for step in ("0", "0", "40", "40")]
    assert [name.endswith("+compressed.webp") for name in names] == [True, False] * 2 or len(names) == 4
    assert client_of(made).get_run(made.run_id).data.tags["mlflow.loggedImages"] == "True"


def test_a_configuration_that_changed_at_a_resume_keeps_the_parameters_and_names_the_change(run: RunFolder):
    made = follower(run)
    made.sync()
    changed = CONFIG.model_copy(update={"seed": 7})
    run.config.write_text(dump_yaml(changed))
    again = follower(run)
    again.sync()
    data = client_of(again).get_run(again.run_id).data
    assert data.params["seed"] == "0"
    assert data.tags["hardray.changed"] == "seed: 7"


def test_sync_ends_a_run_as_its_driver_noted_or_as_killed(run: RunFolder, tmp_path: Path):
    covered(run, 1, 2)
    down = follower(run, "http://127.0.0.1:9")
    with pytest.raises(Exception, match=r".+"):
        down.close("FAILED")
    sync(run.path, lambda _: None)
    made = follower(run)
    assert client_of(made).get_run(made.run_id).info.status == "FAILED"
    other = folder_at(tmp_path / "runs" / "other")
    follower(other).sync()  # then its driver was killed
    sync(other.path, lambda _: None)
    made = follower(other)
    assert client_of(made).get_run(made.run_id).info.status == "KILLED"
    made.reopen()
    made.sync()
    assert client_of(made).get_run(made.run_id).info.status == "RUNNING"


def test_where_files_cannot_be_sent_the_numbers_and_the_end_are(run: RunFolder, monkeypatch: pytest.MonkeyPatch):
    from mlflow import MlflowClient

    def refuse(*_: object) -> None:
        raise OSError("no room for files")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifact", refuse)
        covered(run, 1, 2)
        made = follower(run)
        with pytest.raises(OSError, match="no room for files"):
            made.close("FAILED")
        assert steps_sent(made) == [1, 2]
        assert client_of(made).get_run(made.run_id).info.status == "FAILED"
        assert not made.sent.whole
    made.ended = "FAILED"
    made.follow()
    assert made.sent.whole
    assert [item.path for item in client_of(made).list_artifacts(made.run_id)] == ["config.yaml", "metrics.jsonl"]


def test_a_follower_that_nobody_waits_for_leaves_the_marks_to_others(run: RunFolder):
    made = follower(run)
    made.given_up = True
    with pytest.raises(HardrayError, match="nobody waits"):
        made.sync()
    assert not run.tracking.exists()


def test_a_search_is_synced_with_its_trials(tmp_path: Path, empty_database: Path):
    folder = SearchFolder(tmp_path / "runs" / "search")
    folder.path.mkdir(parents=True)
    shutil.copy(empty_database, tmp_path / "runs" / "mlflow.db")
    folder.config.write_text("trials: 1\n")
    folder.base.write_text(dump_yaml(CONFIG))
    trial = folder_at(folder.trial("t1").path)
    covered(trial, 1, 2)
    rows = [{"id": "t1", "config": {}, "status": "stopped"}, {"id": "t2", "config": {}, "status": "running"}]
    write_json(folder.results, {"status": "finished", "trials": rows})
    lines: list[str] = []
    sync(folder.path, lines.append)
    assert len(lines) == 2
    main, child = read_json(folder.tracking)["run_id"], read_json(trial.tracking)["run_id"]
    client = client_of(follower(RunFolder(folder.path)))
    assert client.get_run(main).info.status == "FINISHED"
    assert client.get_run(child).info.status == "KILLED"
    assert client.get_run(child).data.tags["mlflow.parentRunId"] == main
