"""A run where the user's folder and shell are hostile, and where its whole process group is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from hard_ray.files import read_json
from tests.orchestration.commands import HARDRAY, MARK, descendants, points, wait_for_step, write_config

SHADOWS = ("profile.py", "timm.py", "token.py", "random.py", "datasets.py", "mlflow/__init__.py", "torch/__init__.py")
SHELL = {
    "PYTHONPATH": ".",
    "PYTHONWARNINGS": "error",
    "PYTHONIOENCODING": "ascii",
    "PYTHONHASHSEED": "7",
    "MPLBACKEND": "bogus",
    "LC_ALL": "C",
    "TZ": "Pacific/Chatham",
    "TERM": "dumb",
    "COLUMNS": "20",
}


@pytest.mark.slow
def test_a_run_among_shadowing_files_ends_with_a_checkpoint_when_its_group_gets_sigterm(tmp_path: Path):
    from mlflow import MlflowClient

    place = tmp_path / "läufe"
    place.mkdir()
    for name in SHADOWS:
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text("raise RuntimeError('the file of the working folder was imported')\n")
    write_config(place, "optim.steps=20000", "checkpoints.every=100")
    process = subprocess.Popen(
        [HARDRAY, "distill", "-c", "config.yaml", "--output", "lauf-ß"],
        cwd=place,
        env={**os.environ, **SHELL, MARK: str(place)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    folder = place / "lauf-ß"
    wait_for_step(folder, 12, process)
    started = descendants(process)
    assert not list(folder.glob("checkpoints/*"))
    os.killpg(process.pid, signal.SIGTERM)  # as `timeout`, Slurm and Kubernetes do
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130, out
    assert "stopped, with a checkpoint; continue with `hardray distill --resume" in out
    assert "Traceback" not in out
    assert "l\\xe4ufe" in out  # an ASCII terminal gets an escape
    assert [point["step"] for point in points(folder, "train")][-1] >= 12
    assert len(list(folder.glob("checkpoints/step-*"))) == 1
    assert points(folder, "note") == []
    assert list(folder.glob("gallery/step-*.png"))
    run_id = read_json(folder / "tracking.json")["run_id"]
    assert MlflowClient(f"sqlite:///{place / 'mlflow.db'}").get_run(run_id).info.status == "KILLED"
    _, alive = psutil.wait_procs(started, timeout=20)
    assert alive == []
