import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import HARDRAY, invoke


def test_help_answers_at_once_and_imports_nothing_heavy():
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([HARDRAY, "--help"], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert "distill" in done.stdout
    assert min(times) < 0.5  # of a processor's time: the clock on the wall depends on what else is running
    code = (
        "import sys, hard_ray_cli.main; print([m for m in ('torch','ray','mlflow','timm','numpy') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("command", ["sync", "gallery", "report"])
def test_what_is_done_with_a_run_wants_a_run(tmp_path: Path, command: str):
    done = invoke(command, str(tmp_path))
    assert done.exit_code == 1
    assert "holds no run" in done.stderr


def test_version():
    assert invoke("--version").stdout.startswith("hardray 0.")
