"""Planted secrets appear in no output: not the command's, nor the run folder, MLflow's database or Ray's logs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.orchestration.commands import run, write_config
from tests.support.helpers import plant_secret

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("server", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_planted_secret_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: bool):
    """With MLflow's own database, and with a server that does not answer and whose address has a password."""
    secret = plant_secret(monkeypatch)
    if server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{secret}@127.0.0.1:9")
    write_config(tmp_path, "optim.steps=4")
    with tempfile.TemporaryDirectory(prefix="hr-", dir="/tmp") as ray_folder:  # sockets have short names
        monkeypatch.setenv("RAY_TMPDIR", ray_folder)
        done = run("distill", "-c", "config.yaml", "--output", "run", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        logs = [path for path in Path(ray_folder).rglob("*") if path.is_file()]
        assert {"raylet.out", "gcs_server.out"} <= {path.name for path in logs}
        files = [*logs, *(path for path in tmp_path.rglob("*") if path.is_file())]
        assert {"summary.json", "metrics.jsonl"} <= {path.name for path in files}
        assert any(path.name == "mlflow.db" for path in files) is not server
        assert [str(path) for path in files if secret.encode() in path.read_bytes()] == []
    assert secret not in done.stdout + done.stderr
    if server:
        assert "127.0.0.1:9" in done.stdout + done.stderr
