"""Settings of the shell that are meant for other programs decide nothing about hardray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hard_ray_cli.entry import own_environment, respect_quota

from hard_ray.orchestration.cluster import cgroups
from tests.cli.commands import HARDRAY

HERE = "/home/me/work"
SHADOWED = ("profile", "token", "random", "datetime", "inspect", "typing", "yaml", "rich", "typer", "json")


@pytest.fixture(autouse=True)
def hangup_is_heard() -> Iterator[None]:
    """A child inherits that `nohup` has SIGHUP ignored, under which these tests may run."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def cleaned(names: str = "utf-8", **variables: str) -> tuple[dict[str, str], bool]:
    return own_environment(variables, HERE, names, "ascii")


@pytest.mark.parametrize(
    "name", ["PYTHONWARNINGS", "PYTHONOPTIMIZE", "PYTHONINSPECT", "PYTHONSTARTUP", "PYTHONDEVMODE"]
)
def test_what_the_interpreter_has_read_already_starts_it_again(name: str):
    again, restarts = cleaned(HOME="/h", **{name: "1"})
    assert restarts
    assert again == {"HOME": "/h", "PYTHONIOENCODING": "ascii"}
    assert own_environment(again, HERE, "utf-8", "ascii") == ({"HOME": "/h"}, False)


@pytest.mark.parametrize("name", ["MPLBACKEND", "PYTHONIOENCODING"])
def test_what_only_children_would_read_is_left_out_of_theirs(name: str):
    assert cleaned(HOME="/h", **{name: "bogus"}) == ({"HOME": "/h"}, False)


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        (".", ""),
        ("", ""),
        (":/lib", "/lib"),
        ("/lib:.:/other", "/lib:/other"),
        (HERE, ""),
        (f"{HERE}/../work/:/lib", "/lib"),
        (f"{HERE}/below", f"{HERE}/below"),
    ],
)
def test_the_current_folder_is_no_place_to_import_from(path: str, kept: str):
    again, restarts = cleaned(PYTHONPATH=path)
    assert again["PYTHONPATH"] == kept
    assert restarts is (path != kept)
    assert not cleaned(PYTHONPATH=kept)[1]


def test_a_folder_that_holds_hardray_itself_stays(tmp_path: Path):
    (tmp_path / "hard_ray").mkdir()
    assert own_environment({"PYTHONPATH": "."}, str(tmp_path), "utf-8", "utf-8") == ({"PYTHONPATH": "."}, False)


def test_file_names_are_utf_8_in_any_locale():
    again, restarts = cleaned("iso8859-1", LANG="en_US.ISO-8859-1")
    assert restarts
    assert again["PYTHONUTF8"] == "1"
    assert own_environment(again, HERE, "iso8859-1", "ascii")[1] is False  # once is enough
    assert cleaned("ascii", PYTHONUTF8="0")[0]["PYTHONUTF8"] == "1"
    assert cleaned("utf-8", PYTHONUTF8="0")[1] is False


def hardray(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [HARDRAY, *arguments], cwd=cwd, env={**os.environ, **variables}, capture_output=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONWARNINGS": "error"},
        {"PYTHONPATH": "."},
        {"PYTHONOPTIMIZE": "2"},
        {"PYTHONINSPECT": "1"},
        {"PYTHONSAFEPATH": "1"},
        {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
        {"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "LC_ALL": "C"},
        {"LANG": "tr_TR.UTF-8", "LC_ALL": "tr_TR.UTF-8"},
        {"TERM": "dumb", "COLUMNS": "20"},
        {"COLUMNS": "0", "NO_COLOR": "1"},
        {"FORCE_COLOR": "1", "TZ": "Nowhere/Never"},
    ],
    ids=" ".join,
)
def test_a_command_works_in_any_shell_among_any_files(tmp_path: Path, variables: dict[str, str]):
    place = tmp_path / "ünï"
    place.mkdir()
    for name in SHADOWED:
        (place / f"{name}.py").write_text("raise RuntimeError('the file of the working folder was imported')\n")
    done = hardray("doctor", "-c", "läuft-nicht.yaml", cwd=place, **variables)
    text = (done.stdout + done.stderr).decode()
    assert done.returncode == 2, text
    assert "Traceback" not in text
    assert "uft-nicht.yaml" in text.replace("\n", "")


def test_a_current_folder_that_was_removed_is_told(tmp_path: Path):
    place = tmp_path / "gone"
    place.mkdir()
    command = ["sh", "-c", f"cd {place} && rmdir {place} && exec {HARDRAY} presets"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "the current folder does not exist any more" in done.stderr
    assert "Traceback" not in done.stderr


STOPPED = """
import os, sys, time
from hard_ray_cli import entry, main
def app():
    print("up", flush=True)
    time.sleep(60)
from hard_ray_cli.terminal import readable_errors
main.app = app if "early" in sys.argv else readable_errors()(app)
entry.main()
"""


@pytest.mark.parametrize(("quota", "threads"), [(None, None), (1.5, "1"), (0.2, "1"), (3.0, "3"), (8.0, None)])
def test_threads_follow_a_quota_of_cores(monkeypatch: pytest.MonkeyPatch, quota: float | None, threads: str | None):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(cgroups, "limits", lambda: cgroups.Limits(quota, None))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    respect_quota()
    assert os.environ.get("OMP_NUM_THREADS") == threads
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    respect_quota()
    assert os.environ["OMP_NUM_THREADS"] == "5"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_any_command_like_ctrl_c(number: signal.Signals):
    # a shell has SIGINT ignored in what it starts in the background, and these tests may be started so
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{heard}\n{STOPPED}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout.readline() == "up\n"
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert "stopped" in out


def test_a_signal_before_a_verb_begins_is_no_traceback():
    command = [sys.executable, "-c", STOPPED, "early"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")


def test_nohup_is_respected():
    process = subprocess.Popen(
        [sys.executable, "-c", f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{STOPPED}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.kill()
    process.communicate()
