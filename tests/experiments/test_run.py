"""How rows are run: the commands, and the figures that are kept."""

import json
import subprocess
from pathlib import Path

import pytest

from experiments import rows, run
from experiments.rows import Row
from hard_ray.orchestration.cluster.hardware import Hardware

RESULT = {"models": {"student": {"clean": 86.0}}, "steps": {"student": 4}, "switches": 0, "seed": 3, "versions": {}}
SUITES = {
    "clean": {"top1": 86.0, "loss": 0.5, "agreement": 91.5},
    "corruptions": {"top1": 40.0, "loss": 2.0, "agreement": 52.25, "by": {"fog": {"2": 40.0}}},
}

TEACHER = {
    "clean": {"top1": 90.0, "loss": 0.25},
    "corruptions": {"top1": 70.0, "loss": 1.0, "by": {"fog": {"2": 40.0}}},
}


def files_of_a_run(folder: Path, *, teacher: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(RESULT))
    (folder / "evaluation.json").write_text(json.dumps({"split": "test", "suites": SUITES, "teacher": teacher}))
    (folder / "config.yaml").write_text("augmentor: {kind: pick, augmentor: {kind: cutmix, alpha: 1.0}}\n")
    (folder / "outcome.json").write_text(json.dumps({"seconds": {"total": 8.0}, "steps": {"student": 4}}))


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    ("verb", "seed"), [("distill", "seed=3"), ("train-teacher", "teacher.recipe.seed=3")], ids=["student", "teacher"]
)
def test_a_run_of_either_verb_is_resumed_if_it_has_begun_and_its_figures_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, seed: str, begun: bool
):
    monkeypatch.setattr(run, "WORK", tmp_path / "work")
    monkeypatch.setattr(run, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(rows, "RESULTS", tmp_path / "results")
    monkeypatch.setenv("PHOTOS", "/my photos")
    row = Row("t", "plain", 3, f"{verb} --preset cifar10 data.path=$PHOTOS {seed}")
    output = tmp_path / "work" / "t-plain-s3"
    if begun:
        output.mkdir(parents=True)
        (output / "config.yaml").touch()
    called: list[list[str]] = []

    def hardray(command: list[str], **_: object) -> subprocess.CompletedProcess:
        called.append(command[1:])
        files_of_a_run(output, teacher={} if verb == "train-teacher" else TEACHER)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(run.subprocess, "run", hardray)
    assert run._finish(row, commit=False)
    words = ["--preset", "cifar10", "data.path=/my photos", seed, "--output", str(output), "tracking.enabled=false"]
    assert called == [[verb, "--resume", str(output)] if begun else [verb, *words]]
    found = json.loads((tmp_path / "results" / "t-plain-s3.json").read_text())
    assert found["command"] == f"hardray {row.command}"
    assert found["processor"] == run.processor(run.probe())
    assert found["by"] == {"student": {"corruptions": {"fog": {"2": 40.0}}}}
    assert found["teacher_by"] == ({} if verb == "train-teacher" else found["by"]["student"])
    assert found["costs"] == {"student": {"seconds": 8.0, "seconds_per_update": 2.0, "augmentor_share": 0.0}}
    assert found["test_loss"] == {"student": 0.5} | ({} if verb == "train-teacher" else {"teacher": 0.25})
    assert found["agreement"] == {"student": {"clean": 91.5, "corruptions": 52.25}}
    assert found["augmentor"] == "pick(cutmix)"


def test_rows_are_selected_by_the_beginnings_of_their_names():
    rows = [Row("t", variant, seed, "distill --preset x") for variant in ("kd", "hard", "hard-mix") for seed in (0, 1)]
    assert run.selected(rows, "") == rows
    assert [row.name for row in run.selected(rows, "t-hard-mix, t-kd-s1")] == [
        "t-kd-s1",
        "t-hard-mix-s0",
        "t-hard-mix-s1",
    ]
    assert run.selected(rows, "u") == []


@pytest.mark.parametrize(
    ("gpus", "unit", "expected"),
    [
        ((), None, "2 CPU cores, float32"),
        ((), "AMX", "2 CPU cores with AMX, bfloat16"),
        (("H200",), None, "H200, bfloat16"),
    ],
)
def test_a_row_says_what_it_was_computed_with(gpus: tuple[str, ...], unit: str | None, expected: str):
    machine = Hardware("Any", 2, unit, True, gpus, gpu_has_bf16=True, memory_gib=1, shared_memory_gib=1)
    assert run.processor(machine) == expected
