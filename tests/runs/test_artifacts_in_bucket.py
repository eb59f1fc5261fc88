"""A tracking server that keeps its files in a bucket: runs send them through it, and have no key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hard_ray.runs.sync import sync
from hard_ray.storage import objects
from tests.support.buckets import KEYS, holds_no_key, holds_no_key_remotely, server_with
from tests.support.helpers import finished_run, tiny_config
from tests.support.processes import free_ports, mlflow_server


@pytest.mark.timeout(600)
def test_files_of_a_run_reach_the_bucket_of_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from mlflow import MlflowClient

    config = tiny_config("tracking.enabled=true", "tracking.gallery_images=2")
    run = finished_run(config, tmp_path / "runs" / "one")
    (place := tmp_path / "server").mkdir()
    (port,) = free_ports(1)
    with server_with(tmp_path / "moto.log", "files") as bucket:
        variables = {
            **KEYS,
            "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{place / 'server.db'}",
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{bucket.port}",
        }
        with mlflow_server(place, port, variables, files="s3://files/mlflow"), monkeypatch.context() as client:
            for name in KEYS:
                client.delenv(name)
            client.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
            sync(run.path, lambda _: None)
            made = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
            (experiment,) = made.search_experiments(filter_string=f"name = '{config.tracking.experiment}'")
            (sent,) = made.search_runs([experiment.experiment_id])
            fetched = Path(made.download_artifacts(sent.info.run_id, "config.yaml", str(tmp_path)))
            (model,) = made.search_logged_models([experiment.experiment_id])
        kept = {one.key for one in objects.listing(bucket.remote("files", "mlflow"))}
        holds_no_key_remotely(bucket.remote("files"))
    assert fetched.read_bytes() == run.config.read_bytes()
    assert any(name.endswith(f"{sent.info.run_id}/artifacts/config.yaml") for name in kept)
    assert any(model.model_id in name and name.endswith("MLmodel") for name in kept)
    assert not (place / "kept").exists()
    holds_no_key(tmp_path / "runs")
    holds_no_key(place)
