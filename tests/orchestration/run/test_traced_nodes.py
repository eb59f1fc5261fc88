"""Machines that have only a bucket in common: the kernel says which files each of them touches."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hard_ray_cli
import pytest

import hard_ray
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.files import read_json
from hard_ray.storage import objects
from hard_ray.storage.address import Remote
from hard_ray.storage.mirror import Mirror
from tests.networks.saved import save
from tests.orchestration.commands import HARDRAY
from tests.support.buckets import ONE_TRIAL, Server, holds_no_key, holds_no_key_remotely, server_with
from tests.support.helpers import TINY
from tests.support.processes import await_answer, end, free_ports
from tests.support.saved_students import number_config, number_folder
from tests.support.traces import touches, traced

RAY = str(Path(sys.executable).with_name("ray"))
PATIENCE_S = 900
INSTALLED = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/opt", "/sys", "/proc", "/dev", "/run", "/var")
"""What an image of a container has, or the kernel."""
PROGRAM = tuple(
    str(Path(path).resolve())
    for path in (sys.prefix, sys.base_prefix, Path(hard_ray.__file__).parent, Path(hard_ray_cli.__file__).parent)
)
"""hardray and its packages."""
SHARED_BY_A_MACHINE = ("/dev", "/proc", "/sys/fs/cgroup")
"""Where processes write that keep nothing: devices, shared memory, the kernel's tables."""


@dataclass(frozen=True)
class Machine:
    """A home, a temporary and a working folder of its own."""

    folder: Path

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def cache(self) -> Path:
        return self.folder / "home/.cache/hardray"

    def prepare(self) -> None:
        for name in ("home", "tmp", "work"):
            (self.folder / name).mkdir(parents=True)

    def environment(self) -> dict[str, str]:
        left_out = ("HARDRAY_", "XDG_", "MLFLOW_", "RAY_", "PYTHON")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        own = {"HOME": str(self.folder / "home"), "TMPDIR": str(self.folder / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
        return {**kept, **own, "PYTHONUNBUFFERED": "1"}

    @contextmanager
    def node(self, log: Path, *arguments: str) -> Iterator[None]:
        """One node of Ray, for as long."""
        with log.open("w") as out:
            process = subprocess.Popen(
                [*traced(log), RAY, "start", "--block", "--disable-usage-stats", *arguments],
                cwd=self.work,
                env=self.environment(),
                stdout=out,
                stderr=subprocess.STDOUT,
            )
            try:
                await_answer(lambda: "Ray runtime started" in log.read_text(), process, log.read_text)
                yield
            finally:
                end(process)

    def do(self, log: Path, *arguments: str) -> str:
        """A command of hardray, which must end well."""
        done = subprocess.run(
            [*traced(log), HARDRAY, *arguments],
            check=False,
            cwd=self.work,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def strange(self, logs: Sequence[Path]) -> list[str]:
        """Everything that was touched elsewhere, by what these logs traced."""
        own, found = str(self.folder), []
        for touch in sorted({touch for log in logs for touch in touches(log)}):
            allowed = (own, *SHARED_BY_A_MACHINE) if touch.is_written else (own, *INSTALLED, *PROGRAM)
            relative = not touch.path.startswith("/") and ".." not in Path(touch.path).parts
            if not (relative or any(touch.path == root or touch.path.startswith(f"{root}/") for root in allowed)):
                found.append(f"{'wrote' if touch.is_written else 'read'} {touch.path}")
        return found


@pytest.fixture
def root() -> Iterator[Path]:
    """Short, because Ray's sockets are below it, and their names have at most 107 letters."""
    folder = Path(tempfile.mkdtemp(prefix="m", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with server_with(tmp_path / "log", "data", "runs") as started:
        yield started


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_machines_touch_their_own_folders_and_the_bucket_alone(root: Path, server: Server, tmp_path: Path):
    pictures = number_folder(tmp_path / "data", per_class=8, size=(16, 16))
    for path in pictures.rglob("*.png"):
        objects.write_file(server.remote("data", f"numbers/{path.relative_to(pictures).as_posix()}"), path)
    save("vq", tmp_path / "coder")
    for path in (tmp_path / "coder").iterdir():
        objects.write_file(server.remote("runs", f"coder/{path.name}"), path)
    head, student, teacher = machines = [Machine(root / name) for name in ("h", "s", "t")]
    for machine in machines:
        machine.prepare()
    (head.work / "mine.yaml").write_text(dump_yaml(_config(server)))
    (head.work / "space.yaml").write_text(ONE_TRIAL)
    logs = {machine: [root / f"trace-{machine.folder.name}"] for machine in machines}
    logs[head] += [root / f"trace-{command}" for command in ("distill", "generate", "tune")]

    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    small: tuple[str, ...] = ("--object-store-memory", "100000000")
    with ExitStack() as nodes:
        first = ("--head", "--port", str(port), "--num-cpus", "0", "--include-dashboard", "false")
        nodes.enter_context(head.node(logs[head][0], *first, "--temp-dir", str(head.folder / "tmp/ray"), *small))
        for machine, slot in ((student, "student_slot"), (teacher, "teacher_slot")):
            joined = ("--address", address, "--num-cpus", "3", "--resources", json.dumps({slot: 1}))
            own = ("--temp-dir", str(machine.folder / "tmp/ray"))
            nodes.enter_context(machine.node(logs[machine][0], *joined, *own, *small))
        there = (f"runtime.address={address}", "runtime.cpus_per_worker=1")
        runs = {name: server.url("runs", name) for name in ("run", "set", "search")}
        mine, slots = ("-c", "mine.yaml"), (*there, "runtime.slots=true")
        head.do(logs[head][1], "distill", *mine, *slots, "--output", runs["run"])
        learned = f"teacher.checkpoint={server.url('runs', 'run/teacher/student')}"
        short = ("--autoencoder", server.url("runs", "coder"), "--shard-size", "50", "--steps", "2")
        head.do(logs[head][2], "generate", *mine, *there, learned, *short, "--output", runs["set"])
        head.do(logs[head][3], "tune", "--space", "space.yaml", *slots, learned, "--output", runs["search"])

    pulled = {}
    for name, url in runs.items():
        mirror = Mirror(Remote.parse(url), tmp_path / "pulled" / name)
        mirror.pull()
        pulled[name] = mirror.folder
    assert read_json(pulled["run"] / "summary.json")["models"]["student"]
    assert sorted(pulled["set"].glob("shard-*.parquet"))
    assert [trial["status"] for trial in read_json(pulled["search"] / "results.json")["trials"]] == ["finished"]

    strange = [f"{machine.folder.name} {line}" for machine in machines for line in machine.strange(logs[machine])]
    assert not strange, "\n".join(strange)
    touched = {machine: {touch for log in logs[machine] for touch in touches(log)} for machine in machines}
    weights = {
        machine: [touch.path for touch in touched[machine] if touch.is_written and "/checkpoints/" in touch.path]
        for machine in machines
    }
    assert any(path.startswith(str(student.cache)) and path.endswith(".safetensors") for path in weights[student])
    assert not any(path.endswith(".safetensors") for path in weights[head] + weights[teacher])
    assert any(touch.path.startswith(str(teacher.cache)) for touch in touched[teacher])
    holds_no_key(root)
    holds_no_key(tmp_path / "pulled")
    holds_no_key_remotely(server.remote("runs"))


def _config(server: Server) -> Any:
    given = [one for one in TINY if not one.startswith(("data.", "augmentor."))]
    return number_config(
        Path("data"),
        *given,
        f"data.path={server.url('data', 'numbers')}",
        "data.img_size=16",
        "teacher.model=hardray_cnn",
        "student.model=hardray_mlp",
        "augmentor.kind=affine",
        "teacher.recipe.epochs=2",
        "tracking.enabled=true",
        "tracking.gallery_images=3",
    )
