"""Whichever request is interrupted, `sync` completes: MLflow then has what an undisturbed send gives it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.errors import HardrayError
from hard_ray.files import write_json, write_text
from hard_ray.runs import logged_model
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.log import MetricsLog
from hard_ray.runs.sync import sync
from tests.support.failing_proxy import FailingProxy, failing_proxy
from tests.support.helpers import tiny_config
from tests.support.processes import free_ports, mlflow_server

pytestmark = pytest.mark.timeout(600)

CONFIG = tiny_config(
    "tracking.enabled=true",
    "tracking.experiment=/Shared/birds",
    "student.model_kwargs={widths: [24], 'a, b': 1, '../c': 2, empty: ''}",
    f"teacher.model_kwargs={{widths: [4, 8], note: {'x' * 7000}}}",
)
TIME = 1_700_000_000.0


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FailingProxy]:
    place = tmp_path_factory.mktemp("mlflow")
    (port,) = free_ports(1)
    variables = {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{place / 'server.db'}"}
    with mlflow_server(place, port, variables), failing_proxy(port) as made:
        yield made


@pytest.fixture(autouse=True)
def _small_model(proxy: FailingProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is logged as the model is small, so that it can be sent often."""

    def save(folder: RunFolder, config: Any, path: Path, location: str, sent: Any) -> None:
        (path / "data").mkdir(parents=True)
        (path / "MLmodel").write_text(f"model_id: {sent.model_id}\n")
        (path / "data" / "weights").write_text("weights")

    monkeypatch.setattr(logged_model, "_save", save)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)


def recorded(path: Path) -> RunFolder:
    """A finished run with everything that is sent, without a training."""
    folder = RunFolder(path)
    for place in (folder.gallery, folder.student, folder.later_evaluation, path / "controls" / "kd"):
        place.mkdir(parents=True)
    write_text(folder.config, dump_yaml(CONFIG))
    for step in range(1, 401):
        values = {"train/loss": 1 / step, "train/kd_loss": float("nan") if step == 7 else 0.5, "lr": 0.1}
        MetricsLog(folder.metrics).append({"kind": "train", "step": step, "time": TIME + step, **values})
    MetricsLog(folder.metrics).append({"kind": "val", "step": 400, "time": TIME + 400, "val/näive, suite": 1.0})
    MetricsLog(path / "system.jsonl").append({"step": 0, "time": TIME, "system/cpu": 50.0})
    for step in (0, 200):
        Image.fromarray(np.full((300, 500, 3), step, np.uint8)).save(folder.gallery / f"step-{step:08d}.png")
    facts = {"name": "digits", "digest": "d" * 36, "kind": "digits", "source": "digits", "rows": {"train": 3}}
    write_json(folder.dataset, {**facts, "classes": 2})
    write_json(folder.outcome, {"status": "finished"})
    result = {"split": "test", "suites": {"clean": {"top1": 90.0, "n": 3}, "shift-2": {"top1": 80.0, "n": 3}}}
    write_json(RunFolder(folder.later_evaluation).evaluation, result)
    write_json(folder.tracking, {"later": "evaluation"})
    control = RunFolder(path / "controls" / "kd")
    write_text(control.config, dump_yaml(CONFIG))
    write_json(control.outcome, {"status": "finished"})
    MetricsLog(control.metrics).append({"kind": "train", "step": 1, "time": TIME, "train/loss": 0.5})
    for file in path.rglob("*"):
        os.utime(file, (TIME, TIME))
    return folder


def contents(uri: str, folder: RunFolder) -> dict[str, Any]:
    """All that MLflow has of the runs of a folder, as plain values; ids and paths are left out."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    number = client.get_experiment_by_name("/Shared/birds").experiment_id
    found = {}
    paths = {"one": folder.path, "kd": folder.path / "controls" / "kd"}
    for name, path in paths.items():
        runs = client.search_runs([number], filter_string=f"tags.`hardray.folder` = '{path}'")
        assert len(runs) == 1, f"{len(runs)} runs of {name}"
        (run,) = runs
        run_id = run.info.run_id
        models = client.search_logged_models([number], filter_string=f"source_run_id = '{run_id}'")
        apart = ("hardray.id", "hardray.folder", "mlflow.parentRunId", "mlflow.source.git.commit")
        found[name] = {
            "params": run.data.params,
            "tags": {key: value for key, value in run.data.tags.items() if key not in apart},
            "is child": "mlflow.parentRunId" in run.data.tags,
            "points": {key: points(client.get_metric_history(run_id, key)) for key in run.data.metrics},
            "inputs": [(item.dataset.name, item.dataset.digest) for item in run.inputs.dataset_inputs],
            "outputs": len(run.outputs.model_outputs) if run.outputs else 0,
            "models": [str(model.status) for model in models],
            "files": sorted(files(client, run_id)),
            "end": (run.info.status, run.info.start_time, run.info.end_time),
        }
    return found


def points(history: list[Any]) -> list[tuple[int, int, str]]:
    return sorted((item.step, item.timestamp, repr(item.value)) for item in history)


def files(client: Any, run_id: str, below: str | None = None) -> Iterator[tuple[str, int]]:
    for item in client.list_artifacts(run_id, below):
        if item.is_dir:
            yield from files(client, run_id, item.path)
        else:
            yield item.path, item.file_size


@pytest.fixture(scope="module")
def whole(proxy: FailingProxy, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int]:
    """What an undisturbed send gives, and its number of requests."""
    with pytest.MonkeyPatch.context() as patch:
        _small_model.__wrapped__(proxy, patch)  # type: ignore[attr-defined]
        for place in ("first", "second"):  # the first asks once what kind of server it is
            folder = recorded(tmp_path_factory.mktemp(place) / "runs" / "one")
            proxy.begin()
            sync(folder.path, lambda _: None)
        requests = len(proxy.seen)
        return contents(proxy.uri, folder), requests


def test_everything_is_sent(whole: tuple[dict[str, Any], int]):
    main, control = whole[0]["one"], whole[0]["kd"]
    assert main["params"]["student.model_kwargs.a_ b"] == "1"
    assert main["params"]["student.model_kwargs.empty"] == ""
    assert main["params"]["teacher.model_kwargs.note"].endswith("(7000 characters)")
    assert len(main["params"]["teacher.model_kwargs.note"]) == 6000
    assert len(main["params"]) > 100
    assert len(main["points"]["train/loss"]) == 400
    assert main["points"]["train/kd_loss"][6][2] == "nan"
    assert "val/näive_ suite" in main["points"]
    assert main["points"]["ood/shift_2/top1"][0][2] == "80.0"
    assert main["inputs"] == [("digits", "d" * 36)]
    assert (main["outputs"], main["models"]) == (1, ["READY"])
    assert main["end"] == ("FINISHED", int(1000 * (TIME + 1)), int(1000 * TIME))
    assert main["tags"]["mlflow.user"]
    assert main["tags"]["mlflow.project.entryPoint"] == "distill"
    names = [name for name, _ in main["files"]]
    assert {"metrics.jsonl", "config.yaml", "gallery/step-00000200.png", "evaluation/evaluation.json"} <= set(names)
    steps = [name.split("+")[2] for name in names if name.startswith("images/gallery+step+")]
    assert sorted(steps) == ["0", "0", "200", "200"]
    assert control["is child"]
    assert control["models"] == []


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[Any]:
    """The parts that differ, with both values."""
    return [
        (name, part, found[name][part], wanted[name][part])
        for name in wanted
        for part in wanted[name]
        if found[name][part] != wanted[name][part]
    ]


class Killed(BaseException):
    """Ends everything, as kill -9 does."""


def kill(folder: RunFolder, number: int) -> None:
    """Send, and end at once when the answer to a request has come."""
    from requests import Session

    real, left = Session.request, number

    def killing(*args: Any, **named: Any) -> Any:
        nonlocal left
        answer = real(*args, **named)
        left -= 1
        if left == 0:
            raise Killed
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "request", killing)
        with pytest.raises(Killed):
            sync(folder.path, lambda _: None)


def check(proxy: FailingProxy, place: Path, whole: tuple[dict[str, Any], int], number: int, failure: str) -> None:
    wanted, requests = whole
    folder = recorded(place / f"{failure}-{number}" / "one")
    proxy.begin(0 if failure == "killed" else number, failure)  # type: ignore[arg-type]
    if failure == "killed":
        kill(folder, number)
    else:
        try:
            sync(folder.path, lambda _: None)
        except HardrayError as error:
            assert "nothing is lost" in str(error)
        assert len(proxy.seen) >= number, "the request that was to fail was never made"
    proxy.begin()
    sync(folder.path, lambda _: None)
    found = differences(contents(proxy.uri, folder), wanted)
    assert found == [], f"{failure} at request {number} of {requests}"


FAILURES = ("lost answer", "killed", "500", "lost request")


def test_some_requests_fail_each_in_another_way(proxy, whole, tmp_path: Path):
    for place, number in enumerate(range(3, whole[1] + 1, 5)):
        check(proxy, tmp_path, whole, number, FAILURES[place % len(FAILURES)])


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("failure", FAILURES)
def test_any_request_fails(proxy, whole, tmp_path: Path, failure: str):
    for number in range(1, whole[1] + 1):
        check(proxy, tmp_path, whole, number, failure)


def test_an_answer_comes_too_late(proxy, whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    proxy.late_s = 4
    check(proxy, tmp_path, whole, 10, "late")
