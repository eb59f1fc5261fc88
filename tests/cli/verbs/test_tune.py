"""What `hardray tune` prints, and what it refuses, before anything is scheduled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hard_ray_cli.verbs.tune import plan_lines

from hard_ray.config.space import load_space
from tests.cli.commands import invoke

SPACE = """
base: {preset: digits}
parameters:
  augmentor.strength: {uniform: [0, 1]}
  optim.batch_size: {choice: [32, 64]}
"""


def plan_of(space: str, *overrides: str) -> str:
    lines = plan_lines(load_space(space, list(overrides)))
    return " ".join(f"{heading} {text}" for heading, text in lines)


def test_the_plan_says_what_a_search_tries_and_needs():
    text = plan_of("imagenet.yaml")
    for words in (
        "parameter augmentor.strength: uniform [0, 1]",
        "parameter objective.temperature: loguniform [1, 20]",
        "search Optuna, TPE, seed 0",
        "metric val/top1 (max)",
        "asha: 5 epochs for every trial, then one in 4 goes on; a trial ends at epoch 30",
        "trials 20, 2 at a time, 100 epochs each",
        "a trial 8 student workers of 8 CPU; its driver 0.1 CPU",
        "resnet50.a1_in1k, one pool for all trials: 4 replicas of 2 CPU",
        "Ray Data 2 CPU",
        "needs 138.2 CPU in all",  # 2 x 8 x 8 student workers, 4 x 2 teachers, 2 x 1 Ray Data, 2 x 0.1 drivers
    ):
        assert words in text, text


def test_the_plan_counts_gpus_and_a_colocated_teacher():
    gpus = ("runtime.gpus_per_worker=1", "runtime.teacher.num_gpus=0.5")
    text = plan_of("imagenet", *gpus)
    assert "8 student workers of 8 CPU + 1 GPU" in text
    assert "needs 138.2 CPU + 18 GPU in all" in text
    colocated = plan_of("imagenet", *gpus, "runtime.teacher.placement=colocated")
    assert "a copy in every student worker" in colocated
    assert "needs 130.2 CPU + 16 GPU in all" in colocated


def test_the_plan_of_a_grid_has_every_combination_and_no_more_at_a_time(tmp_path: Path):
    path = tmp_path / "grid.yaml"
    path.write_text(SPACE.replace("uniform: [0, 1]", "choice: [0, 0.5, 1]") + "search: grid\nconcurrency: 9\n")
    text = plan_of(str(path))
    assert "trials 6, 6 at a time, 3,000 updates each" in text
    assert "hardray_cnn, one pool for all trials: 1 replica of 1 CPU; without weights: trained once" in text


def test_the_plan_needs_neither_ray_nor_torch():
    code = """
import sys
from hard_ray.config.space import load_space
from hard_ray_cli.verbs.tune import plan_lines
plan_lines(load_space("digits"))
print([m for m in ("torch", "ray", "mlflow", "optuna") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_dry_run_prints_the_plan_and_tries_a_trial():
    done = invoke("tune", "--space", "digits", "--dry-run")
    assert done.exit_code == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "search Optuna, TPE, seed 0" in text
    assert "16 images of each split decoded, a teacher update by teacher.recipe (loss " in text
    assert "an augmentor update (loss " in text


def test_a_dry_run_finds_what_a_trial_would_fail_on():
    done = invoke("tune", "--space", "digits", "--dry-run", "teacher.recipe.batch_size=1298")
    assert done.exit_code == 1
    assert "teacher.recipe.batch_size 1298 is larger" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--space", "imagenett"), "did you mean imagenet?"),
        ((), "give --space FILE, or one of the shipped spaces: cifar10, digits"),
        (("--resume", "x", "seed=1"), "--resume takes the space from the folder"),
        (("--space", "digits", "optim.lr=-1"), "optim.lr: Input should be greater than 0"),
        (("--space", "digits", "validate.suites=[clean]"), "metric: val/shifted/top1 is of the suite shifted"),
        (("--space", "digits", "objective.kind=kd", "augmentor.kind=random_affine"), "parameters.objective.lambda_t"),
    ],
)
def test_mistakes_are_messages_and_exit_code_2(arguments: tuple[str, ...], words: str):
    done = invoke("tune", *arguments)
    assert done.exit_code == 2, done.stdout + done.stderr
    assert words in " ".join(done.stderr.split())


def test_data_and_teacher_are_shorthands_for_the_base(tmp_path: Path):
    done = invoke("tune", "--space", "mnist", "--data", str(tmp_path), "--teacher", "resnet50", "--dry-run")
    assert "base       resnet50 teaches hardray_mlp on idx" in done.stdout
    assert str(tmp_path) in done.stderr  # where no data are


def test_the_help_for_data_says_that_the_space_names_its_kind():
    text = " ".join(invoke("tune", "--help").stdout.split())
    assert "Short for data.path=..." in text
    assert "unless set" not in text
