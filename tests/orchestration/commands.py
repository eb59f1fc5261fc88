"""Runs of the `hardray` command as processes of their own, to watch, interrupt and kill."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.runs.log import read_points
from tests.support.helpers import tiny_config

MARK = "HARDRAY_TEST_FOLDER"
"""What Ray's processes inherit from the command that started them, by which they are found."""
HARDRAY = str(Path(sys.executable).with_name("hardray"))
CONFIG = (
    "optim.steps=40",
    "validate.suites=[clean, shifted]",
    "teacher.recipe.epochs=2",
    "tracking.enabled=true",
    "tracking.gallery_images=3",
)


def write_config(folder: Path, *overrides: str) -> str:
    """A small run of digits as a file; its path."""
    path = folder / "config.yaml"
    path.write_text(dump_yaml(tiny_config(*CONFIG, *overrides)))
    return str(path)


def run(*arguments: str, cwd: Path, timeout: float = 280) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    return subprocess.run(
        [HARDRAY, *arguments],
        check=False,
        cwd=cwd,
        env={**os.environ, MARK: str(cwd)},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def succeed(*arguments: str, cwd: Path, timeout: float = 280) -> str:
    """The command, which must end well; what it printed."""
    done = run(*arguments, cwd=cwd, timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """The command, in the background, in a process group of its own."""
    return subprocess.Popen(
        [HARDRAY, *arguments],
        cwd=cwd,
        env={**os.environ, MARK: str(cwd)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Everything that the command started: Ray, workers, teachers."""
    return psutil.Process(process.pid).children(recursive=True)


def kill_everything(process: subprocess.Popen[str]) -> None:
    """SIGKILL to the command and all that it started."""
    children = descendants(process)
    process.kill()
    for child in children:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()
    psutil.wait_procs(children, timeout=20)


def named(process: subprocess.Popen[str], name: str) -> list[psutil.Process]:
    """The command's processes whose command line begins so."""
    found = []
    for child in descendants(process):
        with suppress(psutil.NoSuchProcess):
            if " ".join(child.cmdline()).startswith(name):
                found.append(child)
    return found


def kill_named(process: subprocess.Popen[str], name: str) -> int:
    """SIGKILL to the command's actors of that name; how many there were."""
    killed = 0
    for child in named(process, name):
        with suppress(psutil.NoSuchProcess):
            child.kill()
            killed += 1
    return killed


def finish(process: subprocess.Popen[str], timeout: float = 400) -> str:
    """Wait for the command, which must end well; what it printed."""
    out, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, out
    return out


def points(folder: Path, kind: str) -> list[dict]:
    """The points of one kind in a run's log."""
    return [point for _, point in read_points(folder / "metrics.jsonl") if point["kind"] == kind]


def each_update_once(folder: Path) -> bool:
    """Whether no update of a run is missing in its log and none is there twice."""
    steps = [point["step"] for point in points(folder, "train")]
    return steps == list(range(1, len(steps) + 1))


def wait_until(ready: Callable[[], bool], what: str, process: subprocess.Popen[str], timeout: float = 240) -> None:
    """Until something is so, while the command goes on."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        if ready():
            return
        time.sleep(0.02)
    raise AssertionError(f"{what} within {timeout} s")


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str], timeout: float = 240) -> None:
    """Until an update was logged."""

    def logged() -> bool:
        return (folder / "metrics.jsonl").exists() and any(p["step"] >= step for p in points(folder, "train"))

    wait_until(logged, f"update {step} was not reached", process, timeout)
