"""A run of which any part was killed ends with the bits of an undisturbed one and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from hard_ray.files import read_json
from hard_ray.runs.folder import RunFolder
from tests.orchestration.commands import (
    descendants,
    each_update_once,
    finish,
    kill_named,
    named,
    points,
    start,
    succeed,
    wait_for_step,
    write_config,
)
from tests.support.helpers import assert_equal_bits, student_weights
from tests.support.processes import end, free_ports, lives, mlflow_server

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(900)]
SHARED_MEMORY = Path("/dev/shm")
PATIENCE_S = 100.0
"""A raylet without its GCS exits after a minute; the killed hardray cannot end it sooner."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chaos")
    write_config(folder, "optim.steps=120", "checkpoints.every=0.1", "tracking.enabled=false")
    succeed("distill", "-c", "config.yaml", "--output", "straight", cwd=folder)
    return folder


@pytest.fixture
def straight(place: Path) -> Path:
    return place / "straight"


@contextmanager
def nothing_left(folder: Path, started: list[psutil.Process]) -> Iterator[None]:
    """Check that no started process, shared-memory file, lock or half-written file is left."""
    before = set(os.listdir(SHARED_MEMORY))
    yield
    last = time.monotonic() + PATIENCE_S
    while (alive := [process.pid for process in started if lives(process)]) and time.monotonic() < last:
        time.sleep(0.2)
    assert alive == []
    while (new := set(os.listdir(SHARED_MEMORY)) - before) and time.monotonic() < last:
        time.sleep(0.5)
    assert new == set()
    with RunFolder(folder).locked():
        pass
    assert [path.name for path in folder.rglob("*") if path.name[0] == "." and path.suffix in (".tmp", ".old")] == []


def test_each_teacher_in_turn_and_all_at_once(place: Path, straight: Path):
    folder, replicas = place / "teachers", 3
    process = start("distill", "-c", "config.yaml", "--output", "teachers", "runtime.teacher.replicas=3", cwd=place)
    started: list[psutil.Process] = []
    with nothing_left(folder, started):
        for number, step in enumerate((10, 30, 50)):
            wait_for_step(folder, step, process)
            started += descendants(process)
            teachers = named(process, "ray::Replica")
            if teachers:
                sorted(teachers, key=lambda child: child.pid)[number % len(teachers)].kill()
        wait_for_step(folder, 80, process)
        assert 1 <= kill_named(process, "ray::Replica") <= replicas
        finish(process)
    assert_equal_bits(student_weights(straight), student_weights(folder))
    assert each_update_once(folder)


@pytest.mark.parametrize("victim", ["ray::TrainController", "raylet", "gcs_server", "driver"])
def test_what_takes_the_run_with_it_costs_a_resume_and_no_bit(place: Path, straight: Path, victim: str):
    name = f"killed-{victim.rpartition(':')[2]}"
    process = start("distill", "-c", "config.yaml", "--output", name, cwd=place)
    wait_for_step(place / name, 40, process)
    started = descendants(process)
    with nothing_left(place / name, started):
        if victim == "driver":
            process.kill()
        else:
            found = [child for child in started if victim in " ".join(child.cmdline()[:1])]
            assert len(found) == 1, [child.cmdline()[:1] for child in started]
            found[0].kill()
        out, _ = process.communicate(timeout=400)
        assert "Traceback" not in out or victim == "driver", out
    if not (place / name / "summary.json").exists():
        assert process.returncode != 0
        succeed("distill", "--resume", name, cwd=place)
    assert_equal_bits(student_weights(straight), student_weights(place / name))
    assert each_update_once(place / name)


def test_a_corrupt_newest_checkpoint_is_said_and_the_one_before_is_used(place: Path, straight: Path):
    process = start("distill", "-c", "config.yaml", "--output", "corrupt", cwd=place)
    wait_for_step(place / "corrupt", 60, process)
    process.kill()
    process.communicate(timeout=60)
    newest = sorted((place / "corrupt" / "checkpoints").glob("step-*"))[-1]
    (newest / "optimizers.pt").write_bytes(os.urandom(1000))
    succeed("distill", "--resume", "corrupt", cwd=place)
    assert_equal_bits(student_weights(straight), student_weights(place / "corrupt"))
    assert each_update_once(place / "corrupt")


def test_of_two_processes_that_resume_at_once_one_is_refused(place: Path, straight: Path):
    process = start("distill", "-c", "config.yaml", "--output", "twice", cwd=place)
    wait_for_step(place / "twice", 20, process)
    process.kill()
    process.communicate(timeout=60)
    both = [start("distill", "--resume", "twice", cwd=place) for _ in range(2)]
    texts = [each.communicate(timeout=400)[0] for each in both]
    assert sorted(each.returncode for each in both) == [0, 1], texts
    refused = texts[[each.returncode for each in both].index(1)]
    assert "in use by another hardray process" in refused
    assert "Traceback" not in refused
    assert_equal_bits(student_weights(straight), student_weights(place / "twice"))


def test_a_tracking_server_that_is_killed_is_told_the_rest_later(place: Path, straight: Path, tmp_path: Path):
    from mlflow import MlflowClient

    (port,) = free_ports(1)
    uri = f"http://127.0.0.1:{port}"
    options = ("tracking.enabled=true", f"tracking.uri={uri}")
    database = {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path / 'server.db'}"}
    with mlflow_server(tmp_path, port, database) as server:
        process = start("distill", "-c", "config.yaml", "--output", "mlflow", *options, cwd=place)
        wait_for_step(place / "mlflow", 30, process)
        end(server, patience_s=0)
        out = finish(process)
    assert "hardray sync" in out
    assert_equal_bits(student_weights(straight), student_weights(place / "mlflow"))
    with mlflow_server(tmp_path, port, database):
        succeed("sync", "mlflow", cwd=place)
        found = MlflowClient(uri).get_run(read_json(place / "mlflow" / "tracking.json")["run_id"])
        assert found.info.status == "FINISHED"
        assert found.data.metrics["train/loss"] == pytest.approx(points(place / "mlflow", "train")[-1]["train/loss"])


class Slow(BaseHTTPRequestHandler):
    """Server that answers every request after 10 seconds, with an error."""

    def do_GET(self) -> None:
        time.sleep(10)
        self.send_error(503)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


def test_a_tracking_server_that_takes_ten_seconds_does_not_slow_training(place: Path, straight: Path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    uri = f"tracking.uri=http://127.0.0.1:{server.server_address[1]}"
    out = succeed("distill", "-c", "config.yaml", "--output", "slow", "tracking.enabled=true", uri, cwd=place)
    server.shutdown()
    assert "hardray sync" in out
    assert_equal_bits(student_weights(straight), student_weights(place / "slow"))
    fast, slow = (train_seconds(folder) for folder in (straight, place / "slow"))
    assert slow < fast + 10  # one answer of the server would take as long


def train_seconds(folder: Path) -> float:
    times = [point["time"] for point in points(folder, "train")]
    return float(times[-1] - times[0])


def test_a_disk_that_fills_up_stops_the_run_with_the_checkpoints_before(place: Path, straight: Path):
    """A limit on the size of the run's files simulates a full disk; then the limit is lifted."""
    checkpoint = max(path.stat().st_size for path in (straight / "checkpoints").glob("*/*"))
    largest = checkpoint - 1
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(place / "full"), str(place / "config.yaml"), str(largest)],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cannot be written to" in done.stdout
    assert "make room, then resume the run" in done.stdout


FULL = """
import resource, sys, signal
from pathlib import Path
from hard_ray.config.loader import load_config
from hard_ray.errors import HardrayError
from tests.helpers import run_here
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = Path(sys.argv[1])
config = load_config([Path(sys.argv[2])])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    run_here(config, folder)
except HardrayError as error:
    print(error)
assert not list((folder / "checkpoints").glob(".*"))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
run_here(config, folder)
assert (folder / "student" / "model.safetensors").is_file()
"""
