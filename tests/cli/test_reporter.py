"""The lines that a run prints while it goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from hard_ray_cli.reporter import ConsoleReporter
from rich.console import Console

from hard_ray.runs.log import MetricsLog


def evaluated(step: int, time: float) -> dict:
    return {"kind": "val", "step": step, "time": time, "val/top1": float(step)}


def printed(reporter: ConsoleReporter, folder: Path) -> list[str]:
    """The evaluations that a look at the log prints."""
    reporter.watch([SimpleNamespace(folder=folder, name="student")])
    lines = reporter.console.export_text().splitlines()
    return [line.split("val ")[1] for line in lines]


def test_a_line_that_is_still_being_written_waits(tmp_path: Path):
    log, reporter = MetricsLog(tmp_path / "metrics.jsonl"), ConsoleReporter(Console(record=True, width=200))
    assert printed(reporter, tmp_path) == []
    log.append(evaluated(1, 1.0))
    with log.path.open("a") as stream:
        stream.write('{"kind": "val", "st')
    assert printed(reporter, tmp_path) == ["1.0 %"]
    with log.path.open("a") as stream:
        stream.write('ep": 2, "time": 2.0, "val/top1": 2.0}\n')
    assert printed(reporter, tmp_path) == ["2.0 %"]


def test_a_log_that_a_resume_cut_is_read_from_its_start_and_each_evaluation_printed_once(tmp_path: Path):
    log, reporter = MetricsLog(tmp_path / "metrics.jsonl"), ConsoleReporter(Console(record=True, width=200))
    for step in (1, 2, 3):
        log.append(evaluated(step, float(step)))
    assert printed(reporter, tmp_path) == ["1.0 %", "2.0 %", "3.0 %"]
    log.cut(1)
    for step in (2, 3, 4, 5):  # longer than before the cut: the old offset lies in the middle of a point
        log.append(evaluated(step, 10.0 + step))
    assert printed(reporter, tmp_path) == ["2.0 %", "3.0 %", "4.0 %", "5.0 %"]
    assert printed(reporter, tmp_path) == []


def test_three_suites_without_labels_fit_on_a_line(tmp_path: Path):
    log, reporter = MetricsLog(tmp_path / "metrics.jsonl"), ConsoleReporter(Console(record=True, width=120))
    suites = ("val/", "val/shifted/", "val/corruptions/")
    log.append({"kind": "val", "step": 30, "time": 1.0, **{f"{suite}agreement": 16.7 for suite in suites}})
    reporter.watch([SimpleNamespace(folder=tmp_path, name="student")])
    (line,) = reporter.console.export_text().splitlines()
    assert line.endswith("val agreement 16.7 %  val/shifted agreement 16.7 %  val/corruptions agreement 16.7 %")


PRINTS = """
import sys, time
from hard_ray_cli.reporter import ConsoleReporter
from hard_ray_cli.terminal import console, say
reporter = ConsoleReporter(console)
print("up", flush=True)
sys.stdin.readline()
for number in range(3):
    reporter.say("a line")
    say("another")
open(sys.argv[1], "w").write("the job went on")
"""


def test_a_reader_that_goes_away_ends_no_job(tmp_path: Path):
    file = tmp_path / "went on"
    process = subprocess.Popen(
        [sys.executable, "-c", PRINTS, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "up\n"
    process.stdout.close()  # as `hardray distill | head -1` does
    _, errors = process.communicate("\n", timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert file.read_text() == "the job went on"
