"""`hardray submit` and `jobs` against a real cluster with a token, started and ended by this file alone."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.orchestration.commands import HARDRAY
from tests.support.helpers import TINY
from tests.support.processes import await_answer, end, free_ports

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

BIN = Path(sys.executable).parent
SECRET = "hunter2hunter2"


@dataclass(frozen=True)
class Head:
    """A cluster of one node."""

    address: str
    gcs: str
    environment: dict[str, str]

    def hardray(self, *arguments: str, cwd: Path, **changed: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [HARDRAY, *arguments],
            check=False,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=400,
            env=self.environment | changed,
        )


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """`--block` keeps the node in one process session, so that it can be ended without other Ray clusters."""
    gcs, dashboard, agent, client, metrics = free_ports(5)
    place = tempfile.mkdtemp(prefix="hj", dir="/tmp")  # sockets lie in it, and their paths have to be short
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    log = Path(place, "head.log").open("w")  # noqa: SIM115  (closed below)
    process = subprocess.Popen(
        [
            *(str(BIN / "ray"), "start", "--head", "--block", "--include-dashboard=true", "--disable-usage-stats"),
            *("--num-cpus=4", f"--temp-dir={place}", "--node-ip-address=127.0.0.1", f"--port={gcs}"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"),
            *(f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"),
        ],
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        address = f"http://127.0.0.1:{dashboard}"
        await_answer(lambda: answers(address), process, Path(log.name).read_text)
        yield Head(address, f"127.0.0.1:{gcs}", environment)
    finally:
        end(process)
        log.close()
        subprocess.run(["rm", "-rf", place], check=False)


def answers(address: str) -> bool:
    try:
        with urlopen(f"{address}/api/version", timeout=5):
            return True
    except OSError as error:
        return getattr(error, "code", None) in (401, 403)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("submit")


def test_a_cluster_is_joined_with_the_token_at_hand_whatever_the_mode(head: Head, place: Path):
    """With RAY_AUTH_MODE unset, Ray itself would join without the token."""
    environment = {key: value for key, value in head.environment.items() if key != "RAY_AUTH_MODE"}
    whole = Head(head.address, head.gcs, environment)
    done = whole.hardray("doctor", "--address", head.gcs, cwd=place)
    assert f"{head.gcs} starts and has 4 CPU" in " ".join(done.stdout.split()), done.stdout


def test_a_run_is_followed_to_its_end_with_files_and_variables(head: Head, place: Path):
    (place / "mine.yaml").write_text("optim: {steps: 4}\nteacher: {recipe: {epochs: 1}}\n")
    tiny = [item for item in TINY if not item.startswith("optim.steps")]
    command = ("distill", "--preset", "digits", "-c", "mine.yaml", "--output", str(place / "run"), *tiny)
    options = ("--address", head.address, "--env", f"MY_SECRET={SECRET}")
    done = head.hardray("submit", *options, "--", *command, cwd=place, RAY_ADDRESS="127.0.0.1:1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"run      {place / 'run'}" in done.stdout
    assert (place / "run" / "summary.json").is_file()
    assert SECRET not in done.stdout + done.stderr
    status = head.hardray("jobs", "status", the_job(done.stdout), "--address", head.address, cwd=place)
    assert "status   SUCCEEDED" in status.stdout
    assert SECRET not in status.stdout


def the_job(text: str) -> str:
    found = re.search(r"raysubmit_\w+", text)
    assert found is not None, text
    return found[0]


def test_a_command_that_fails_there_gives_its_exit_code(head: Head, place: Path):
    command = ("distill", "--preset", "digits", "--output", str(place / "none"), "data.kind=image_folder")
    done = head.hardray("submit", "--address", head.address, "--", *command, "data.path=/no/such", cwd=place)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "there is no such folder" in done.stdout
    assert "failed with exit code 1" in done.stderr


def test_a_job_is_listed_followed_and_stopped(head: Head, place: Path):
    tiny = [item for item in TINY if not item.startswith("optim.steps")]
    command = ("distill", "--preset", "digits", "--output", str(place / "long"), *tiny, "optim.steps=1000000")
    at = ("--address", head.address)
    done = head.hardray("submit", *at, "--no-follow", "--", *command, cwd=place)
    assert done.returncode == 0, done.stderr
    job = the_job(done.stdout)
    assert f"hardray jobs stop {job}" in done.stdout
    last = time.monotonic() + 240
    while not list((place / "long" / "checkpoints").glob("step-*")):
        assert time.monotonic() < last, head.hardray("jobs", "logs", job, *at, cwd=place).stdout
        time.sleep(1)
    follower = subprocess.Popen(
        [HARDRAY, "jobs", "logs", job, "--follow", *at], env=head.environment, stdout=subprocess.PIPE, text=True
    )
    assert job in head.hardray("jobs", "list", *at, cwd=place).stdout
    time.sleep(8)
    follower.send_signal(signal.SIGINT)
    said, _ = follower.communicate(timeout=60)
    assert follower.returncode == 130
    assert f"the job {job} goes on" in said
    assert "has been asked to stop" in head.hardray("jobs", "stop", job, *at, cwd=place).stdout
    after = head.hardray("jobs", "logs", job, "--follow", *at, cwd=place)
    assert after.returncode in (1, 130), after.stdout
    assert "was stopped" in after.stderr
    assert f"hardray distill --resume {place / 'long'}" in " ".join(after.stdout.split()), after.stdout


def test_a_wrong_token_is_one_message(head: Head, place: Path):
    wrong = secrets.token_hex(32)
    done = head.hardray("jobs", "list", "--address", head.address, cwd=place, RAY_AUTH_TOKEN=wrong)
    assert done.returncode == 1
    assert "refuses the token: set RAY_AUTH_TOKEN" in done.stderr
    assert wrong not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_another_port_of_the_cluster_is_not_taken_for_the_dashboard(head: Head, place: Path):
    done = head.hardray("jobs", "list", "--address", f"http://{head.gcs}", cwd=place)
    assert done.returncode == 1
    assert "has no Jobs API of Ray" in done.stderr, done.stderr


def test_an_unknown_job_is_one_message(head: Head, place: Path):
    done = head.hardray("jobs", "logs", "nosuch", "--follow", "--address", head.address, cwd=place)
    assert done.returncode == 1
    assert "has no job nosuch" in done.stderr


def test_the_doctor_compares_the_cluster_with_a_configuration(head: Head, place: Path):
    looked = ("doctor", "--address", head.gcs, "--preset", "digits", "--output", str(place / "runs"))
    good = head.hardray(*looked, cwd=place)
    assert good.returncode == 0, good.stdout + good.stderr
    text = " ".join(good.stdout.split())
    for words in ("the run reserves 3 CPU", "those of this machine on 1 nodes", "every node sees"):
        assert words in text
    bad = head.hardray(*looked, "runtime.num_workers=8", cwd=place)
    assert bad.returncode == 1
    assert "reserves 10 CPU (the cluster has 4)" in " ".join(bad.stdout.split())
