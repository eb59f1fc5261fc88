"""Long end-to-end tests: killed, interrupted, unreachable and broken parts, and more than one worker."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tarfile
from pathlib import Path

import numpy as np
import psutil
import pytest

from hard_ray.files import read_json
from hard_ray.runs.folder import RunFolder
from tests.orchestration.commands import (
    descendants,
    each_update_once,
    kill_named,
    points,
    run,
    start,
    succeed,
    wait_for_step,
    write_config,
)
from tests.support.helpers import assert_equal_bits, student_weights

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    own_teacher = "teacher.recipe.seed=11"  # that no other test has cached
    write_config(folder, "optim.steps=60", "checkpoints.every=0.1", own_teacher)
    return folder


@pytest.fixture(scope="module")
def straight(place: Path) -> Path:
    succeed("distill", "-c", "config.yaml", "--output", "straight", cwd=place)
    return place / "straight"


def test_two_runs_with_the_same_seed_have_the_same_bits(place: Path, straight: Path):
    succeed("distill", "-c", "config.yaml", "--output", "again", cwd=place)
    assert_equal_bits(student_weights(straight), student_weights(place / "again"))


def test_teachers_killed_three_times_cost_no_bit(place: Path, straight: Path):
    process = start("distill", "-c", "config.yaml", "--output", "teachers", cwd=place)
    killed = 0
    for step in (8, 24, 45):
        wait_for_step(place / "teachers", step, process)
        killed += kill_named(process, "ray::Replica")
    out, _ = process.communicate(timeout=280)
    assert process.returncode == 0, out
    assert killed == 3
    assert_equal_bits(student_weights(straight), student_weights(place / "teachers"))


def test_a_worker_killed_twice_goes_on_from_its_checkpoint(place: Path, straight: Path):
    process = start("distill", "-c", "config.yaml", "--output", "workers", cwd=place)
    for step in (15, 40):
        wait_for_step(place / "workers", step, process)
        assert kill_named(process, "ray::RayTrainWorker") == 1
    out, _ = process.communicate(timeout=400)
    assert process.returncode == 0, out
    assert_equal_bits(student_weights(straight), student_weights(place / "workers"))
    assert each_update_once(place / "workers")


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_checkpoint_closes_the_run_and_ends_everything(
    place: Path, straight: Path, signal_number: signal.Signals
):
    from mlflow import MlflowClient

    name = f"stopped-{signal_number.name}"
    process = start("distill", "-c", "config.yaml", "--output", name, cwd=place)
    wait_for_step(place / name, 12, process)
    children = descendants(process)
    if signal_number == signal.SIGINT:
        os.killpg(process.pid, signal_number)  # a terminal sends Ctrl-C to the whole group
    else:
        process.send_signal(signal_number)  # Kubernetes and `kill` send SIGTERM to the command alone
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130, out
    assert f"continue with `hardray distill --resume {place / name}`" in out.replace("\n", " ")
    assert "Traceback" not in out
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    run_id = read_json(place / name / "tracking.json")["run_id"]
    client = MlflowClient(f"sqlite:///{place / 'mlflow.db'}")
    assert client.get_run(run_id).info.status == "KILLED"
    succeed("distill", "--resume", name, cwd=place)
    assert client.get_run(run_id).info.status == "FINISHED"
    assert_equal_bits(student_weights(straight), student_weights(place / name))


def test_ctrl_c_is_heard_while_a_control_trains(place: Path):
    long = ("experiment.controls=[kd]", "optim.steps=20000")
    process = start("distill", "-c", "config.yaml", "--output", "control", *long, cwd=place)
    control = place / "control" / "controls" / "kd"
    wait_for_step(control, 12, process)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130, out
    assert list((control / "checkpoints").glob("step-*"))
    assert not (control / "outcome.json").exists()
    assert not (place / "control" / "metrics.jsonl").exists()


def test_a_tracking_server_that_never_answers_is_told_later(place: Path, straight: Path):
    from mlflow import MlflowClient

    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(50)
    done = run(
        "distill",
        "-c",
        "config.yaml",
        "--output",
        "offline",
        f"tracking.uri=http://127.0.0.1:{server.getsockname()[1]}",
        cwd=place,
    )
    server.close()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hardray sync" in done.stdout
    assert_equal_bits(student_weights(straight), student_weights(place / "offline"))
    text = (place / "offline" / "config.yaml").read_text()
    (place / "offline" / "config.yaml").write_text(text.replace(text.split("uri: ")[1].split("\n")[0], "null"))
    succeed("sync", "offline", cwd=place)
    client = MlflowClient(f"sqlite:///{place / 'mlflow.db'}")
    found = client.get_run(read_json(place / "offline" / "tracking.json")["run_id"])
    assert found.info.status == "FINISHED"
    assert "train/loss" in found.data.metrics


TOKENS = (
    "objective.w_tokens=0.5",
    "student={model: vit_tiny_patch16_224, model_kwargs: {depth: 2, embed_dim: 24, num_heads: 2, patch_size: 4}}",
)


@pytest.mark.parametrize(
    ("objective", "augmentor", "more"),
    [
        ("kd", "identity", ()),
        ("embedding", "identity", ()),
        ("embedding", "affine", ()),
        pytest.param("embedding", "affine", TOKENS, id="tokens"),
    ],
)
def test_two_workers_give_the_loss_curve_of_one(
    place: Path, straight: Path, objective: str, augmentor: str, more: tuple[str, ...]
):
    """Float32 and no BatchNorm: one global batch, cut in two."""
    teacher = place / "teacher-for-two"
    shutil.copytree(next((place / "straight").glob("teacher/student")), teacher, dirs_exist_ok=True)
    curves, suites = {}, {}
    for workers in (1, 2):
        name = f"{objective}-{augmentor}-{len(more)}-{workers}"
        succeed(
            "distill",
            "-c",
            "config.yaml",
            "--output",
            name,
            f"runtime.num_workers={workers}",
            f"teacher.checkpoint={teacher}",
            f"objective.kind={objective}",
            f"augmentor.kind={augmentor}",
            "optim.steps=60",
            *more,
            cwd=place,
            timeout=400,
        )
        logged = points(place / name, "train")
        curves[workers] = np.array([point["train/loss"] for point in logged if "train/loss" in point])
        suites[workers] = read_json(place / name / "evaluation.json")["suites"]
        assert len(curves[workers]) == 60
    np.testing.assert_allclose(curves[2][:50], curves[1][:50], rtol=1e-4)
    for suite, values in suites[1].items():
        assert suites[2][suite]["n"] == values["n"]
        assert suites[2][suite]["loss"] == pytest.approx(values["loss"], rel=0.01)


def test_an_image_folder_with_ten_broken_files_trains_and_lists_the_ten(place: Path, shared_data: Path, tmp_path: Path):
    with tarfile.open(shared_data / "cifar10" / "cifar10_jpeg.tar.xz") as archive:
        archive.extractall(tmp_path / "cifar", filter="data")
    root = tmp_path / "cifar"
    images = sorted((root / "train").rglob("*.jpg"))
    broken = [images[number] for number in range(500, 50_000, 5_000)]
    for number, path in enumerate(broken):
        data = path.read_bytes()
        path.write_bytes([b"", data[:100], b"no image", data[: len(data) // 2]][number % 4])
    succeed(
        "distill",
        "--preset",
        "cifar10",
        f"data.path={root}",
        "--output",
        "cifar",
        "teacher.model=cifar_resnet8",
        "teacher.recipe.epochs=0.1",
        "objective.kind=kd",
        "augmentor.kind=identity",
        "optim.epochs=1",
        "tracking.enabled=false",
        cwd=place,
        timeout=800,
    )
    listed = (place / "cifar" / "bad_images.txt").read_text().splitlines()
    assert listed == sorted(map(str, broken))
    assert read_json(place / "cifar" / "summary.json")["bad_images"] == 10


def test_more_broken_images_than_allowed_stop_the_run(place: Path, tmp_path: Path):
    from tests.support.helpers import make_image_folder

    root = make_image_folder(tmp_path / "data", per_class=60)
    for path in sorted((root / "train").rglob("*.png"))[::10]:
        path.write_bytes(b"broken")
    done = run(
        "distill",
        "-c",
        "config.yaml",
        "--output",
        "broken",
        "data.kind=image_folder",
        f"data.path={root}",
        "data.img_size=16",
        "student.model_kwargs={widths: [24]}",
        "data.max_bad_fraction=0.02",
        cwd=place,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "images cannot be read, more than the 2 that data.max_bad_fraction allows" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_process_on_the_same_run_is_refused(place: Path, straight: Path):
    with RunFolder(straight).locked():  # what the first process holds while it runs
        second = run("distill", "--resume", "straight", cwd=place)
    assert second.returncode == 1
    assert "in use by another hardray process" in second.stderr
