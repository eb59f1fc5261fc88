"""`make gpu` measures what it says, also without Ray, and goes on when a cell breaks."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu import report
from benchmarks.gpu.card import idle_between
from benchmarks.gpu.cells import Cell, measured
from benchmarks.gpu.isolated import NO_TIME, Isolated
from benchmarks.gpu.plain import Plain
from benchmarks.gpu.sides import hardray_side
from benchmarks.gpu.with_ray import Sample, Watch
from benchmarks.gpu.workload import METHODS, STUDENT_STEPS, Method, Workload, make_images
from benchmarks.hard_passes import flops

ROOT = Path(__file__).parents[2]

WITHOUT_RAY = """
import runpy, sys

ABSENT = {"ray", "mlflow", "typer", "rich", "pyarrow", "pandas", "scipy", "sklearn", "psutil", "diffusers", "optuna"}

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in ABSENT else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
runpy.run_module("benchmarks.gpu", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Workload:
    made = Workload("cpu", 32, 8, "float32", True, tmp_path_factory.mktemp("gpu"), classes=10)
    make_images(made, 2)
    return made


@pytest.mark.timeout(900)
def test_without_ray_the_cpu_stands_in_for_a_card_and_every_column_is_there(tmp_path: Path):
    command = [sys.executable, "-c", WITHOUT_RAY, "--device", "cpu", "--no-compile", "--batch", "8"]
    command += ["--only", "test_resnet", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    with_pool = [cell for cell in found["cells"] if "pool, same card" in cell["key"]]
    assert {cell["error"] for cell in with_pool} == {"not measured (ray is not installed)"}
    cells = [cell for cell in found["cells"] if cell not in with_pool]
    assert {cell["error"] for cell in cells} == {None}
    speeds = {cell["key"][2]: cell["values"] for cell in cells if cell["key"][0] == "speed"}
    assert set(speeds) == set(METHODS)
    columns = {"images_per_s", "plain_images_per_s", "ratio", "idle", "plain_idle", "peak_gib"}
    assert all(values[name] > 0 for values in speeds.values() for name in columns)
    assert speeds["HARD"]["arithmetic"] > 0
    (gradient,) = (cell["values"] for cell in found["cells"] if cell["key"][0] == "gradient")
    assert max(gradient.values()) < 1e-5
    text = (tmp_path / "gpu.md").read_text()
    assert all(f"| {name} |" in text for name in (*report.SPEED_HEAD, *report.GRADIENT_HEAD, *report.BITS_HEAD))
    assert text.count("the same bits") == 2
    assert "the CPU, which stands in for a card" in text
    assert text in done.stdout


@pytest.mark.parametrize("method", METHODS)
def test_the_plain_loop_computes_as_much_as_hardray(work: Workload, method: Method):
    pair = work.pairs[0]
    counts = []
    for side in (hardray_side(work, pair, method), Plain(work, pair, method, False)):
        side.more(1)
        counts.append(flops(functools.partial(side.more, STUDENT_STEPS)))
    assert counts[0] == pytest.approx(counts[1], rel=0.01)


def test_idle_time_is_between_the_spans_that_overlap_or_not():
    assert idle_between([(0, 4), (2, 6), (8, 10), (3, 5)]) == pytest.approx(0.2)
    assert idle_between([(5, 6)]) == 0


def broken(until: float) -> dict:
    raise ValueError("out of\nmemory")


def quick(value: float, until: float) -> dict:
    return {"value": value}


def leave(until: float) -> dict:
    os._exit(3)


def linger(until: float) -> dict:
    time.sleep(60)
    return {}


def test_a_broken_measure_is_said_and_the_others_go_on():
    cells = [
        Cell(("a",), broken, 0.0, 60.0),
        Cell(("b",), functools.partial(quick, 2.0), 0.0, 60.0),
        Cell(("c",), leave, 0.0, 60.0),
        Cell(("d",), linger, 0.0, 0.2),
        Cell(("e",), functools.partial(quick, 3.0), 1e6, 1e6),
    ]
    lines: list[str] = []
    found = dict(measured(cells, time.monotonic() + 120, start="fork", say=lines.append))
    assert found["a",].error == "ValueError: out of memory"
    assert found["b",].values == {"value": 2.0}
    assert found["c",].error == "its process ended with 3"
    assert (found["d",].error or "").startswith(NO_TIME)
    assert found["e",].error == NO_TIME
    assert [key for (key,), outcome in found.items() if outcome.failed] == ["a", "c"]
    assert "a ..." in lines


def child_of(note: Path) -> dict:
    note.write_text(str(subprocess.Popen(["sleep", "300"]).pid))
    time.sleep(300)
    return {}


def test_a_late_measure_is_ended_with_the_processes_that_it_started(tmp_path: Path):
    running = Isolated(functools.partial(child_of, tmp_path / "pid"))
    end = time.monotonic() + 30
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < end
        time.sleep(0.02)
    assert running.result(time.monotonic()).error
    state = Path("/proc", (tmp_path / "pid").read_text(), "stat")
    while state.exists() and state.read_text().split()[2] != "Z":
        assert time.monotonic() < end
        time.sleep(0.02)


def test_targets_are_said_to_be_met_or_missed():
    values = {"ratio": 0.9, "arithmetic": 1.2, "idle": 0.05}
    assert report.verdict("KD", values) == "ratio >= 0.95: MISSED; idle <= 0.1: met"
    assert report.verdict("HARD", values) == "arithmetic <= 1.15: MISSED; idle <= 0.1: met"
    assert report.verdict("CutMix", {}) == report.ABSENT


def test_a_row_says_why_it_has_no_values():
    cells = [
        {"key": ["speed", "a -> b", "KD", "no", "in process"], "values": {}, "error": NO_TIME},
        {"key": ["bits", "a -> b", "yes", "first"], "values": {"sha256": "1" * 64}, "error": None},
        {"key": ["bits", "a -> b", "yes", "second"], "values": {"sha256": "2" * 64}, "error": None},
        {"key": ["compilation", "yes"], "values": {"a -> b, KD": 12.3, "a -> b, HARD": "out of memory"}, "error": None},
    ]
    machine = {"cards": [], "driver": None, "versions": {"torch": "2.11.0", "ray": None}}
    work = {"device": "cpu", "batch": 8, "size": 32, "dtype": "float32"}
    found = {"machine": machine, "work": work, "decoded_per_s": 1.0, "seconds": 2.0, "bit_updates": 11, "cells": cells}
    text = report.markdown(found)
    assert f"| a -> b | KD | no | in process | {NO_TIME} | - |" in text
    assert f"| a -> b | yes | different bits | {'1' * 12} |" in text
    assert "a -> b, KD 12 s; a -> b, HARD: out of memory." in text
    assert report.GRADIENT_SAYS not in text


def test_the_table_takes_the_place_between_the_markers_of_a_page(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.put("new\n", page)
    report.put("newer\n", page)
    assert page.read_text() == f"before\n{report.BEGIN}\nnewer\n{report.END}\nafter\n"
    (tmp_path / "bare.md").write_text("nothing")
    with pytest.raises(SystemExit, match="has no place for the table"):
        report.put("new", tmp_path / "bare.md")


def test_a_watched_card_is_as_idle_as_its_samples_say():
    lines = ["0, 50, 1024", "1, 10, 2048", "0, 100, 3072", "1, 20, 512"]
    watch = Watch(cards=2, samples=[Sample.of(line, at=10.0 + number) for number, line in enumerate(lines)])
    assert watch.between(10, 14) == {"idle": 0.25, "peak_gib": 3.0}  # of card 0, the busier one
    assert watch.between(13, 14) == {"idle": 0.8, "peak_gib": 0.5}
    assert watch.between(20, 30) == {}


def test_make_gpu_takes_an_interpreter_that_has_what_it_needs(tmp_path: Path):
    command = ["make", "gpu", f"PYTHON={sys.executable}", f"VENV={tmp_path / 'venv'}", "OPTIONS=--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--minutes" in done.stdout
    assert not (tmp_path / "venv").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_whole_runs_and_compiled_networks_are_measured(tmp_path: Path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--batch", "8", "--minutes", "25"]
    command += ["--only", "test_resnet | KD", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert {cell["error"] for cell in found["cells"]} == {None}
    speeds = {tuple(cell["key"][3:]): cell["values"] for cell in found["cells"]}
    assert set(speeds) == {("no", "in process"), ("yes", "in process"), ("no", "pool, same card")}
    assert all(values["ratio"] > 0 for values in speeds.values())
    assert {values.get("compiled_again") for values in speeds.values()} == {None, 0}
