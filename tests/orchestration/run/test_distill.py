"""`hardray distill` through the command line: a run, a killed and resumed run, and the files of both."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
import timm
import torch
import yaml

from hard_ray.files import read_json
from hard_ray.orchestration.cluster.processes import BACKGROUND
from tests.orchestration.commands import (
    MARK,
    kill_everything,
    named,
    points,
    run,
    start,
    succeed,
    wait_for_step,
    write_config,
)
from tests.support.helpers import assert_equal_bits, student_weights


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def straight(place: Path) -> Path:
    """An undisturbed run."""
    own_teacher = "teacher.recipe.seed=5"  # that no other test has cached: this run has to train it
    config = write_config(place, "experiment.controls=[kd]", own_teacher)
    (place / "straight.txt").write_text(succeed("distill", "-c", config, "--output", "straight", cwd=place))
    return place / "straight"


@pytest.fixture(scope="module")
def niceness() -> dict[str, int]:
    """Niceness by name, of the processes of the run that `resumed` kills."""
    return {}


@pytest.fixture(scope="module")
def resumed(place: Path, straight: Path, niceness: dict[str, int]) -> Path:
    """The same run, killed with SIGKILL after its 20th update, and resumed."""
    process = start("distill", "-c", str(place / "config.yaml"), "--output", "resumed", cwd=place)
    folder = place / "resumed"
    wait_for_step(folder, 20, process)
    for name in ("ray::RayTrainWorker", "ray::Replica"):
        niceness[name] = named(process, name)[0].nice()
    kill_everything(process)
    assert not (folder / "outcome.json").exists(), "the run was over before it was killed"
    succeed("distill", "--resume", str(folder), cwd=place)
    return folder


def test_the_student_computes_before_its_teacher(resumed: Path, niceness: dict[str, int]):
    assert niceness == {"ray::RayTrainWorker": os.getpriority(os.PRIO_PROCESS, 0), "ray::Replica": BACKGROUND}


def test_a_run_says_where_everything_is_and_ends_with_a_table(straight: Path):
    text = (straight.parent / "straight.txt").read_text()
    for words in ("teacher hardray_cnn: has no weights, so it is trained first", "student, plain KD", "HARD (affine)"):
        assert words in text, text
    for words in (f"run      {straight}", f"gallery  {straight / 'gallery'}", "hardray ui --runs"):
        assert words in text, text
    assert "Traceback" not in text


def test_the_run_folder_has_what_is_promised(straight: Path):
    names = {path.name for path in straight.iterdir()}
    assert names >= {
        "config.yaml",
        "metrics.jsonl",
        "summary.json",
        "evaluation.json",
        "checkpoints",
        "best",
        "student",
        "gallery",
    }
    summary = read_json(straight / "summary.json")
    assert set(summary["models"]) == {"teacher", "kd", "student"}
    assert set(summary["models"]["student"]) == {"clean", "shifted"}
    assert set(summary["seconds"]) == {"total", "data_wait", "teacher_wait", "augmentor", "student"}
    assert summary["steps"]["student"] == 40
    assert summary["steps"]["augmentor"] > 0
    assert summary["seed"] == 0
    assert summary["teacher_identity"].endswith("-float32")
    assert summary["versions"]["torch"] == torch.__version__.split("+")[0]
    assert len(list((straight / "gallery").glob("*.png"))) >= 2


def test_the_resolved_config_loads_back_to_the_same(straight: Path):
    from hard_ray.config.loader import load_config
    from hard_ray.config.safe_yaml import dump_yaml

    config = load_config([straight / "config.yaml"])
    assert yaml.safe_load(dump_yaml(config)) == yaml.safe_load((straight / "config.yaml").read_text())
    assert config.runtime.gpus_per_worker == 0.0


def test_a_killed_and_resumed_run_equals_the_straight_one_bit_for_bit(straight: Path, resumed: Path):
    assert_equal_bits(student_weights(straight), student_weights(resumed))
    kd = "controls/kd"
    assert_equal_bits(student_weights(straight / kd), student_weights(resumed / kd))


def test_no_update_is_logged_twice_and_none_is_missing(straight: Path, resumed: Path):
    for folder in (straight, resumed):
        steps = [point["step"] for point in points(folder, "train")]
        assert steps == list(range(1, len(steps) + 1))
    for kind in ("train", "val", "switch"):
        assert [p["step"] for p in points(resumed, kind)] == [p["step"] for p in points(straight, kind)]


def test_mlflow_has_one_run_per_distillation_the_same_after_a_resume(straight: Path, resumed: Path, place: Path):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("hardray")
    runs = {found.info.run_name: found for found in client.search_runs([experiment.experiment_id], max_results=100)}
    assert set(runs) == {f"{name}{part}" for name in ("straight", "resumed") for part in ("", "/kd", "/teacher")} - {
        "resumed/teacher"
    }  # the cache had it
    for name, folder in (("straight", straight), ("resumed", resumed)):
        main = runs[name]
        assert main.info.status == "FINISHED"
        assert main.data.params["augmentor.kind"] == "affine"
        assert "| student, HARD (affine) |" in main.data.tags["mlflow.note.content"]
        assert runs[f"{name}/kd"].data.tags["mlflow.parentRunId"] == main.info.run_id
        history = client.get_metric_history(main.info.run_id, "train/loss")
        student = [p["step"] for p in points(folder, "train") if "train/loss" in p]
        assert sorted(metric.step for metric in history) == student
        for key in (
            "train/kd_loss",
            "train/disagreement",
            "train/drift",
            "phase",
            "time/teacher_wait",
            "val/top1",
            "val/shifted/top1",
            "augmentor/shift_x_std",
            "switch/phase",
            "system/cpu_utilization_percentage",
        ):
            assert key in main.data.metrics, key
        artifacts = {item.path for item in client.list_artifacts(main.info.run_id)}
        assert {"config.yaml", "summary.json", "evaluation.json", "gallery", "metrics.jsonl"} <= artifacts


def test_the_logged_model_gives_the_students_logits_at_any_batch_size(straight: Path, place: Path):
    import mlflow

    uri = f"sqlite:///{place / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient(uri)
    (output,) = client.get_run(read_json(straight / "tracking.json")["run_id"]).outputs.model_outputs
    logged = mlflow.pytorch.load_model(f"models:/{output.model_id}")
    import hard_ray.networks  # noqa: F401

    student = timm.create_model(f"local-dir:{straight / 'student'}", pretrained=True).eval()
    for rows in (1, 5):
        images = torch.rand(rows, 1, 16, 16)
        with torch.inference_mode():
            assert (logged(images) - student(images)).abs().max() < 1e-5


def test_a_finished_run_is_not_trained_again(straight: Path):
    before = student_weights(straight)
    stamp = (straight / "student" / "model.safetensors").stat().st_mtime_ns
    done = run("distill", "-c", str(straight.parent / "config.yaml"), "--output", str(straight), cwd=straight.parent)
    assert done.returncode == 1
    assert "holds a run already" in done.stderr
    assert (straight / "student" / "model.safetensors").stat().st_mtime_ns == stamp
    assert_equal_bits(before, student_weights(straight))


def test_nothing_is_left_running(straight: Path, resumed: Path):
    left = [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline", "environ"])
        if (process.info["environ"] or {}).get(MARK) == str(straight.parent)
    ]
    assert left == []
