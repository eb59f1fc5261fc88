"""MLflow follows the run folder: nothing lost, nothing twice, no waiting."""

import json
import os
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest

from hard_ray.config.layers import dotted_values
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.files import read_json, write_json
from hard_ray.runs.background import Tracking
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.log import MetricsLog
from hard_ray.runs.system_metrics import SystemSampler
from hard_ray.runs.tracking import Follower, tracking_uri
from tests.support.helpers import run_here, tiny_config

CONFIG = tiny_config("tracking.enabled=true")


def folder_at(path: Path) -> RunFolder:
    path.mkdir(parents=True)
    folder = RunFolder(path)
    folder.config.write_text(dump_yaml(CONFIG))
    return folder


def log(folder: RunFolder, *steps: int) -> None:
    for step in steps:
        point = {"kind": "train", "step": step, "time": 1000.0 + step, "train/loss": step / 10}
        MetricsLog(folder.metrics).append(point)


def cover(folder: RunFolder, step: int) -> None:
    (folder.checkpoints / f"step-{step:08d}").mkdir(parents=True)


def follower(folder: RunFolder, uri: str | None = None, **more: object) -> Follower:
    return Follower(folder, CONFIG, folder.path.name, uri or tracking_uri(CONFIG.tracking, folder), **more)


def steps_sent(made: Follower, key: str = "train/loss") -> list[int]:
    from mlflow import MlflowClient

    return sorted(m.step for m in MlflowClient(made.uri).get_metric_history(made.run_id, key))


@pytest.fixture
def run(tmp_path: Path, empty_database: Path) -> RunFolder:
    made = folder_at(tmp_path / "runs" / "one")
    shutil.copy(empty_database, made.path.parent / "mlflow.db")
    return made


def test_one_database_for_all_runs_beside_each_other(run: RunFolder, monkeypatch: pytest.MonkeyPatch):
    assert tracking_uri(CONFIG.tracking, run) == f"sqlite:///{run.path.parent}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere:5000")
    assert tracking_uri(CONFIG.tracking, run) == "http://somewhere:5000"
    own = CONFIG.tracking.model_copy(update={"uri": "http://own:5000"})
    assert tracking_uri(own, run) == "http://own:5000"


def test_the_pictures_of_the_training_are_sent_and_nothing_else_of_the_gallery(run: RunFolder):
    from mlflow import MlflowClient

    run.gallery.mkdir()
    for name in ("step-00000000.png", "step-00000000.npz", "step-00000040.png", "grid.png"):
        (run.gallery / name).write_bytes(b"x")
    made = follower(run)
    made.sync()
    sent = [item.path for item in MlflowClient(made.uri).list_artifacts(made.run_id, "gallery")]
    assert sorted(sent) == ["gallery/step-00000000.png", "gallery/step-00000040.png"]


def test_points_are_sent_once_a_checkpoint_covers_them(run: RunFolder):
    made = follower(run)
    log(run, 1, 2, 3)
    made.sync()
    assert steps_sent(made) == []
    cover(run, 2)
    made.sync()
    assert steps_sent(made) == [1, 2]
    log(run, 4, 5)
    write_json(run.outcome, {"status": "finished"})
    made.sync()
    made.sync()
    assert steps_sent(made) == [1, 2, 3, 4, 5]


def test_after_a_resume_the_same_run_goes_on_and_no_step_is_sent_twice(run: RunFolder):
    first = follower(run)
    log(run, 1, 2, 3, 4)
    cover(run, 2)
    first.sync()
    first.close("KILLED")
    MetricsLog(run.metrics).cut(2)  # what a resume does
    log(run, 3, 4, 5)
    second = follower(run)
    second.reopen()
    assert second.run_id == first.run_id
    cover(run, 5)
    second.sync()
    assert steps_sent(second) == [1, 2, 3, 4, 5]
    from mlflow import MlflowClient

    assert MlflowClient(second.uri).get_run(second.run_id).info.status == "RUNNING"


def test_sending_again_what_was_not_remembered_does_no_harm(run: RunFolder):
    made = follower(run)
    log(run, 1, 2, 3)
    cover(run, 3)
    made.sync()
    remembered = read_json(run.tracking)
    write_json(run.tracking, {**remembered, "steps": {}})
    again = follower(run)
    again.sync()
    assert steps_sent(again) == [1, 2, 3]


def test_a_control_waits_for_its_parent_and_is_its_child(run: RunFolder, tmp_path: Path):
    parent = follower(run)
    child = follower(folder_at(run.path / "controls" / "kd"), parent.uri, parent=parent)
    child.sync()
    assert child.sent.run_id is None
    parent.sync()
    child.sync()
    from mlflow import MlflowClient

    tags = MlflowClient(parent.uri).get_run(child.run_id).data.tags
    assert tags["mlflow.parentRunId"] == parent.run_id


def test_a_deleted_database_is_begun_anew(run: RunFolder):
    made = follower(run)
    log(run, 1, 2)
    cover(run, 2)
    made.sync()
    (run.path.parent / "mlflow.db").rename(run.path.parent / "old.db")
    other = follower(run, f"sqlite:///{run.path.parent}/new.db")
    other.sync()
    assert other.run_id != made.run_id
    assert steps_sent(other) == [1, 2]


def test_every_parameter_of_the_configuration_is_recorded(run: RunFolder):
    made = follower(run)
    made.sync()
    from mlflow import MlflowClient

    params = MlflowClient(made.uri).get_run(made.run_id).data.params
    wanted = dotted_values(CONFIG.model_dump(mode="json"), empty_blocks=True)
    assert {key: str(value) for key, value in wanted.items()} == params


def silent_server() -> tuple[socket.socket, str]:
    """Takes connections and never answers."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(50)
    return server, f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.chaos
@pytest.mark.parametrize("kind", ["down", "silent"])
def test_a_server_that_is_down_or_silent_costs_no_time_and_loses_nothing(run: RunFolder, kind: str):
    server, uri = silent_server()
    if kind == "down":
        server.close()
    made = follower(run, uri)
    tracking = Tracking([made], sample_system=False)
    start = time.monotonic()
    tracking.start()
    log(run, 1, 2, 3)
    cover(run, 3)
    complete = tracking.stop(lambda: made.close("FINISHED"), patience_s=2)
    assert not complete
    assert time.monotonic() - start < 5
    assert made.sent.run_id is None
    later = follower(run)  # the server is back: here, the database
    later.sync()
    assert steps_sent(later) == [1, 2, 3]
    server.close()


def test_system_use_is_sampled_and_continues_after_a_resume(run: RunFolder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hard_ray.runs.system_metrics.SAMPLE_EVERY_S", 0.0)
    for _ in range(2):
        made = follower(run)
        tracking = Tracking([made], sample_system=True)
        tracking.start()
        end = time.monotonic() + 60
        before = sum(1 for _ in (run.path / "system.jsonl").open()) if (run.path / "system.jsonl").exists() else 0
        while time.monotonic() < end and not (
            (run.path / "system.jsonl").exists() and sum(1 for _ in (run.path / "system.jsonl").open()) > before
        ):
            time.sleep(0.1)
        assert tracking.stop(made.sync, patience_s=60), tracking.problem
    points = [json.loads(line) for line in (run.path / "system.jsonl").open()]
    assert [point["step"] for point in points] == list(range(len(points)))
    assert steps_sent(made, "system/cpu_utilization_percentage") == list(range(len(points)))
    assert not [t for t in threading.enumerate() if t.name == "mlflow" and t.is_alive()]


class Monitor:
    """One of MLflow's."""

    def collect_metrics(self) -> None:
        pass

    def aggregate_metrics(self) -> dict[str, float]:
        return {"cpu": 50.0}

    def clear_metrics(self) -> None:
        pass


def test_a_sample_that_a_full_disk_cut_off_is_dropped_by_the_next(run: RunFolder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hard_ray.runs.system_metrics.SAMPLE_EVERY_S", 0.0)
    monkeypatch.setattr(SystemSampler, "_all", lambda self: [Monitor()])
    sampler = SystemSampler(run)
    sampler.sample()
    with sampler.path.open("a") as stream:
        stream.write('{"step": 1, "ti')
    sampler.sample()
    SystemSampler(run).sample()
    points = [json.loads(line) for line in sampler.path.read_text().splitlines()]
    assert [(point["step"], point["system/cpu"]) for point in points] == [(0, 50.0), (1, 50.0), (2, 50.0)]


def test_a_torn_sample_does_not_end_what_mlflow_is_told(run: RunFolder):
    whole = [json.dumps({"step": step, "time": 1000.0 + step, "system/cpu": 50.0}) for step in range(3)]
    (run.path / "system.jsonl").write_text(f"{whole[0]}\n{whole[1][:20]}{whole[1]}\n{whole[2]}\n")
    made = follower(run)
    made.sync()
    assert steps_sent(made, "system/cpu") == [0, 2]


@pytest.mark.parametrize("before", [None, "http://somewhere:5000"])
def test_logging_a_model_leaves_mlflows_global_address_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
):
    if before is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", before)
    folder = RunFolder(tmp_path / "runs" / "one")
    run_here(CONFIG.model_copy(update={"optim": CONFIG.optim.model_copy(update={"steps": 2})}), folder.path)
    folder.config.write_text(dump_yaml(CONFIG))
    made = follower(folder, f"sqlite:///{tmp_path}/mlflow.db")
    made.close("FINISHED")
    assert made.sent.model
    assert os.environ.get("MLFLOW_TRACKING_URI") == before
