"""A distillation in a notebook whose own MLflow run is open: a real kernel runs the cells."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.orchestration.commands import CONFIG
from tests.support.helpers import TINY

SETTINGS = [*TINY, *CONFIG, "optim.steps=4", "tracking.experiment=/Shared/by hardray"]
CELLS = (
    """
import json, logging, os
import mlflow
mlflow.set_tracking_uri("sqlite:///own.db")
mlflow.set_experiment("mine")
own = mlflow.start_run(run_name="my own")
mlflow.log_metric("mine", 1.0)

def state():
    return {
        "address": mlflow.get_tracking_uri(),
        "active run": mlflow.active_run().info.run_id,
        "experiment": mlflow.tracking.fluent._get_experiment_id(),
        "variables": {name: value for name, value in os.environ.items() if "MLFLOW" in name or "GIT" in name},
        "level": logging.getLogger("mlflow").level,
    }

before = state()
""",
    f"""
from hard_ray.api import distill, load_config
result = distill(load_config(preset="digits", overrides={SETTINGS!r}), "runs/one")
""",
    """
after = state()
mlflow.log_metric("mine", 2.0)
mlflow.end_run()
print(json.dumps({"before": before, "after": after, "own": own.info.run_id, "problem": result.tracking_problem}))
""",
)


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_the_notebooks_own_run_stays_open_and_everything_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import nbformat
    from mlflow import MlflowClient
    from nbclient import NotebookClient

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    # the tests' environment is that of the kernel; `python3` is the kernel that ipykernel installs
    NotebookClient(
        notebook, timeout=250, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute(env=dict(os.environ))
    printed = "".join(output.get("text", "") for output in notebook.cells[-1].outputs)
    found = json.loads(printed.strip().splitlines()[-1])
    assert found["problem"] is None
    assert found["after"] == found["before"]
    client = MlflowClient(f"sqlite:///{tmp_path / 'own.db'}")
    own = client.get_run(found["own"])
    assert own.data.metrics == {"mine": 2.0}
    assert not (tmp_path / "runs" / "mlflow.db").exists()
    mine = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert [run.info.run_id for run in mine] == [found["own"]]
    runs = client.search_runs([client.get_experiment_by_name("/Shared/by hardray").experiment_id])
    names = {run.info.run_name: run for run in runs}
    assert names["one"].info.status == "FINISHED"
    assert names["one"].data.tags["mlflow.source.type"] == "NOTEBOOK"
    assert names["one"].outputs.model_outputs
    assert all("mlflow.parentRunId" in run.data.tags for name, run in names.items() if name != "one")
