"""`hardray train-teacher` through the command line: killed, resumed, and used in a distillation."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from hard_ray.files import read_json
from tests.orchestration.commands import kill_everything, points, run, start, succeed, wait_for_step, write_config


@pytest.mark.slow
def test_a_teacher_that_was_killed_is_resumed_and_teaches(tmp_path: Path):
    config = write_config(tmp_path, "teacher.recipe={steps: 60}")
    command = ("train-teacher", "-c", config, "--output", "teacher", "teacher.recipe.seed=1")
    process = start(*command, cwd=tmp_path)
    folder = tmp_path / "teacher"
    wait_for_step(folder, 10, process)
    kill_everything(process)
    assert not (folder / "outcome.json").exists(), "the run was over before it was killed"
    refused = run(*command, "teacher.recipe.lr=0.2", "--continue", cwd=tmp_path)
    assert refused.returncode == 2, refused.stdout
    assert "holds a run of another configuration: optim.lr is 0.2" in refused.stderr
    text = succeed(*command, "--continue", cwd=tmp_path)
    assert "Traceback" not in text
    assert [point["step"] for point in points(folder, "train")] == list(range(1, 61))
    assert set(read_json(folder / "summary.json")["models"]) == {"student"}
    assert {"metrics.jsonl", "evaluation.json", "checkpoints", "student", "best"} <= {p.name for p in folder.iterdir()}
    (line,) = [line for line in text.splitlines() if line.startswith("teach    ")]
    verb, *overrides = shlex.split(line.removeprefix("teach    hardray "))
    assert f"teacher.checkpoint={folder / 'student'}" in overrides
    plan = succeed(verb, "-c", config, *overrides, "--dry-run", cwd=tmp_path)
    assert "trained first" not in plan
    assert (tmp_path / "mlflow.db").is_file()
