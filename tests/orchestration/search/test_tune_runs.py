"""Searches on Ray, through the command line: one that runs to its end, and one that is killed and resumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hard_ray.config.loader import load_config
from hard_ray.files import read_json
from hard_ray.runs.search_folder import SearchFolder
from hard_ray.runs.trials import TrialStatus
from tests.orchestration.commands import kill_everything, points, start, succeed, wait_for_step, write_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
PATIENCE_S = 1500

SPACE = """
base: {config: config.yaml}
parameters:
  optim.opt: {choice: [sgd, nonsense, adamw]}
search: grid
scheduler: none
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a space; a busy machine has time to start Ray's dashboard."""
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "300")
    monkeypatch.setenv("RAY_agent_register_timeout_ms", "300000")
    write_config(tmp_path, "validate.every=0.25", "checkpoints.every=0.1")
    (tmp_path / "mine.yaml").write_text(SPACE)
    return tmp_path


def by_setting(folder: SearchFolder) -> dict[str, dict]:
    return {trial["config"]["optim.opt"]: trial for trial in read_json(folder.results)["trials"]}


def test_a_search_tries_every_setting_and_one_that_fails_ends_nothing(place: Path):
    from mlflow import MlflowClient

    text = succeed("tune", "--space", "mine.yaml", "--output", "s", cwd=place, timeout=PATIENCE_S)
    folder = SearchFolder(place / "s")
    results, trials = read_json(folder.results), by_setting(folder)
    assert {name: trial["status"] for name, trial in trials.items()} == {
        "sgd": "finished",
        "nonsense": "failed",
        "adamw": "finished",
    }
    assert "optim.opt 'nonsense' is no optimiser of timm" in trials["nonsense"]["reason"]
    for name in ("sgd", "adamw"):
        run = folder.trial(trials[name]["id"])
        (_, *_, last) = points(run.path, "val")
        assert trials[name]["metrics"]["val/top1"] == last["val/top1"]
        assert read_json(run.outcome)["teacher_identity"] == results["teacher_identity"]
        assert load_config([run.config]).optim.opt == name
        assert not (run.path / "teacher").exists()  # one teacher, in the search's folder, for all

    best = max(("sgd", "adamw"), key=lambda name: trials[name]["metrics"]["val/top1"])
    assert results["best"] in {trial["id"] for trial in trials.values()}
    assert (
        trials[load_config([folder.best_config]).optim.opt]["metrics"]["val/top1"]
        == (trials[best]["metrics"]["val/top1"])
    )
    assert {path.name for path in folder.plots} >= {"history.png", "parallel.png"}
    assert "nonsense" in text and "best     hardray distill -c" in text and "Traceback" not in text

    client = MlflowClient(f"sqlite:///{place / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("hardray")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    parent = runs.pop("s")
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["best/val/top1"] == trials[best]["metrics"]["val/top1"]
    assert "| adamw |" in parent.data.tags["mlflow.note.content"]
    assert {"space.yaml", "results.json", "best.yaml", "leader_board.json", "history.png"} <= {
        item.path for item in client.list_artifacts(parent.info.run_id)
    }
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert sorted(run.info.status for run in runs.values()) == ["FAILED", "FINISHED", "FINISHED"]
    sgd = runs[f"s/{trials['sgd']['id']}"]
    assert sgd.data.metrics["val/top1"] == trials["sgd"]["metrics"]["val/top1"]


def test_a_killed_search_goes_on_and_what_was_finished_is_not_run_again(place: Path):
    (place / "mine.yaml").write_text(SPACE.replace("nonsense, ", ""))
    process = start("tune", "--space", "mine.yaml", "--output", "s", "optim.steps=400", cwd=place)
    folder = SearchFolder(place / "s")
    first, second = wait_for_second_trial(folder, process)
    kill_everything(process)
    stamp = (first / "student" / "model.safetensors").stat().st_mtime_ns
    reached = max(point["step"] for point in points(second, "train"))
    succeed("tune", "--resume", "s", cwd=place, timeout=PATIENCE_S)
    trials = by_setting(folder)
    assert {trial["status"] for trial in trials.values()} == {"finished"}
    assert len(trials) == len(list((folder.path / "trials").iterdir())) == 2
    assert (first / "student" / "model.safetensors").stat().st_mtime_ns == stamp
    steps = [point["step"] for point in points(second, "train")]
    assert steps == sorted(set(steps))
    assert steps[-1] > reached
    assert len(list((second / "ray").glob("**/*"))) > 0
    assert Path(folder.best_config).is_file()


MORE = """
base: {config: config.yaml}
parameters:
  optim.lr: {loguniform: [0.01, 0.1]}
search: SEARCH
scheduler: none
trials: 1
"""


@pytest.mark.parametrize("search", ["random", "optuna"])
def test_more_trials_of_a_finished_search_are_run_and_those_before_stay(place: Path, search: str):
    (place / "mine.yaml").write_text(MORE.replace("SEARCH", search))
    words = ("--space", "mine.yaml", "optim.steps=8", "tracking.enabled=false")
    succeed("tune", *words, "--output", "s", cwd=place, timeout=PATIENCE_S)
    folder = SearchFolder(place / "s")
    (first,) = read_json(folder.results)["trials"]
    stamp = (folder.trial(first["id"]).path / "student" / "model.safetensors").stat().st_mtime_ns
    (place / "mine.yaml").write_text(MORE.replace("SEARCH", search).replace("trials: 1", "trials: 2"))
    succeed("tune", *words, "--resume", "s", cwd=place, timeout=PATIENCE_S)
    trials = read_json(folder.results)["trials"]
    assert [trial["status"] for trial in trials] == ["finished", "finished"]
    assert trials[0] == first
    assert trials[1]["config"] != first["config"]
    assert (folder.trial(first["id"]).path / "student" / "model.safetensors").stat().st_mtime_ns == stamp


def wait_for_second_trial(folder: SearchFolder, process) -> tuple[Path, Path]:
    """Until one trial has finished and the next has a checkpoint; their folders."""
    import time

    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        trials = read_json(folder.results, {}).get("trials", [])
        ended = [trial["id"] for trial in trials if trial["status"] == TrialStatus.FINISHED]
        others = [path for path in (folder.path / "trials").glob("*") if path.name not in ended]
        if ended and any((path / "checkpoints").glob("step-*") for path in others):
            (second,) = others
            wait_for_step(second, 30, process, timeout=PATIENCE_S)
            return folder.trial(ended[0]).path, second
        time.sleep(0.1)
    raise AssertionError("no second trial")
