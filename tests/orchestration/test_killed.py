"""Nothing that a command started outlives it by more than seconds, whatever ended it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from hard_ray.orchestration.cluster.processes import WORKERS_END_S
from hard_ray.runs.search_folder import SearchFolder
from tests.orchestration.commands import descendants, named, start, succeed, wait_for_step, wait_until, write_config
from tests.support.processes import lives

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(900)]
PROMISED_S = WORKERS_END_S + 5
LONG = ("optim.steps=20000", "checkpoints.every=0.1", "validate.every=0.25", "tracking.enabled=false")
SPACE = """
base: {config: config.yaml}
parameters:
  optim.lr: {choice: [0.1, 0.05]}
search: grid
scheduler: none
concurrency: 2
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    write_config(folder, *LONG)
    (folder / "mine.yaml").write_text(SPACE)
    succeed("distill", "-c", "config.yaml", "--output", "run", "optim.steps=4", cwd=folder)
    return folder


@pytest.fixture(autouse=True)
def hangup_is_heard() -> Iterator[None]:
    """A child inherits that `nohup` has SIGHUP ignored, under which these tests may run."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def still_there(started: list[psutil.Process], within_s: float) -> list[str]:
    """What lives after that time, with how long it has lived."""
    last = time.monotonic() + within_s
    while (alive := [process for process in started if lives(process)]) and time.monotonic() < last:
        time.sleep(0.2)
    return [f"{process.pid} {' '.join(process.cmdline())[:80]}" for process in alive]


def begun(process: subprocess.Popen[str], place: Path, verb: str, output: str) -> None:
    """Wait until the command is at work."""
    folder = place / output
    if verb == "tune":
        trials = SearchFolder(folder).path / "trials"
        ready: Callable[[], bool] = lambda: len(list(trials.glob("*/metrics.jsonl"))) == 2  # noqa: E731
        wait_until(ready, "no trial began", process)
    elif verb in ("distill", "train-autoencoder"):
        wait_for_step(folder, 5, process)
    else:
        wait_until(lambda: bool(named(process, "ray::MapWorker")), "no network was loaded", process)


COMMANDS = {
    "distill": ("-c", "config.yaml"),
    "tune": ("--space", "mine.yaml"),
    "evaluate": ("run", "--suite", "corruptions"),
    "train-autoencoder": ("--kind", "kl", "--preset", "digits", "--steps", "20000", "--widths", "4,8"),
}


@pytest.mark.parametrize("verb", COMMANDS)
def test_what_a_killed_command_started_ends_within_seconds(place: Path, verb: str):
    output = f"killed-{verb}"
    process = start(verb, *COMMANDS[verb], "--output", output, cwd=place)
    begun(process, place, verb, output)
    started = descendants(process)
    process.kill()
    process.communicate(timeout=60)
    assert len(started) > 5
    assert still_there(started, PROMISED_S) == []


@pytest.mark.parametrize("verb", COMMANDS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_to_the_group_of_any_command_is_kept(place: Path, verb: str, number: signal.Signals):
    output = f"{number.name}-{verb}"
    process = start(verb, *COMMANDS[verb], "--output", output, cwd=place)
    begun(process, place, verb, output)
    started = descendants(process)
    os.killpg(process.pid, number)
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 130, out
    assert "stopped" in out
    assert "Traceback" not in out
    assert still_there(started, PROMISED_S) == []
    if verb == "tune":
        trials = sorted((place / output / "trials").glob("*"))
        assert all(list(trial.glob("checkpoints/step-*")) for trial in trials), trials
    elif verb != "evaluate":
        assert list((place / output).glob("checkpoints/step-*"))
    else:
        assert "no suite is finished, so the same command begins anew" in " ".join(out.split())


def test_two_signals_within_a_moment_are_one_and_a_later_second_ends_at_once(place: Path):
    process = start("distill", *COMMANDS["distill"], "--output", "twice", cwd=place)
    begun(process, place, "distill", "twice")
    process.send_signal(signal.SIGTERM)
    os.killpg(process.pid, signal.SIGTERM)  # as `timeout` does
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "stopped, with a checkpoint" in out


def test_a_run_stopped_before_its_first_update_promises_no_checkpoint(place: Path):
    process = start("distill", *COMMANDS["distill"], "--output", "early", cwd=place)
    wait_until((place / "early").is_dir, "it did not begin", process)
    started = descendants(process)
    os.killpg(process.pid, signal.SIGTERM)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130, out
    assert bool(list((place / "early").glob("checkpoints/step-*"))) is ("with a checkpoint;" in out)
    assert "Traceback" not in out
    assert still_there(started, PROMISED_S) == []
