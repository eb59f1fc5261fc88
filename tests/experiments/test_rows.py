import json
from pathlib import Path
from typing import get_args

import pytest

from experiments import page, rows
from experiments.rows import read_rows, read_tables
from hard_ray.config.loader import load_config
from hard_ray.config.teacher_training import load_teacher_config, teacher_run
from hard_ray.config.validation import Suite
from hard_ray.evaluation.suites import conditions

FOLDERS = {
    name: f"/{name.lower()}"
    for name in (
        "CIFAR10",
        "CIFAR10_5K",
        "AUTOENCODER",
        "TEACHER",
        "STUDENT",
        "VQ",
        "DAD",
        "RESNET20",
        "ROBUST",
        "PLAIN",
    )
} | {"MNIST": "/m n"}


def test_every_row_is_a_valid_run_of_its_seed():
    for row in read_rows(read_tables()):
        verb, *arguments = row.arguments(FOLDERS)
        assert verb == row.verb
        assert verb in ("distill", "train-teacher", "score-augmentations")
        assert arguments[0] == "--preset"
        load = load_teacher_config if verb == "train-teacher" else load_config
        config = load(preset=arguments[1], overrides=[word for word in arguments[2:] if "=" in word])
        run = teacher_run(config) if verb == "train-teacher" else config
        assert run.seed == row.seed
        assert set(row.missing({})) <= set(FOLDERS)
        assert row.missing(FOLDERS) == []


def test_a_row_that_trains_a_teacher_has_the_seed_of_its_recipe():
    table = {"command": "train-teacher --preset x", "seeds": [3], "variants": {"plain": ""}}
    assert read_rows({"t": table})[0].command == "train-teacher --preset x teacher.recipe.seed=3"


def test_conditions_that_are_called_seen_are_conditions_of_the_suite():
    tables = [table["conditions"] for table in read_tables().values() if "conditions" in table]
    assert tables
    for table in tables:
        assert table["suite"] in get_args(Suite)
        names = {condition.name for condition in conditions(table["suite"], img_size=32)}
        assert set(table["seen"]) < names


def test_folders_with_spaces_stay_one_word():
    (row, *_) = [row for row in read_rows(read_tables()) if row.table == "mnist-shift"]
    assert "data.path=/m n" in row.arguments(FOLDERS)


def test_all_variants_of_a_seed_come_before_the_next_seed():
    seeds = [row.seed for row in read_rows(read_tables()) if row.table == "cifar10"]
    assert seeds == sorted(seeds)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    return tmp_path


def test_the_page_has_means_ranges_costs_and_curves(results: Path, tmp_path: Path):
    table = {
        "title": "A table",
        "command": "distill --preset x",
        "seeds": [0, 1],
        "models": {"teacher": "teacher", "student": "HARD"},
        "suites": ["clean"],
        "curve": "shifts",
        "variants": {"hard": ""},
    }
    for seed, top1 in ((0, 90.0), (1, 92.0)):
        curve = {"shifts": {"shift": {"0": top1, "3": top1 - 10}}}
        (results / f"t-hard-s{seed}.json").write_text(
            json.dumps(
                {
                    "models": {"teacher": {"clean": 99.0}, "student": {"clean": top1}},
                    "costs": {"student": {"seconds_per_update": 0.1, "augmentor_share": 0.2}},
                    "by": {"student": curve},
                    "teacher_by": {"shifts": {"shift": {"0": 99.0, "3": 98.0}}},
                }
            )
        )
    target = tmp_path / "page.md"
    page.write_page({"t": table}, target)
    text = target.read_text()
    for line in (
        "| HARD | 91.0 (90.0 to 92.0) | 0.100 | 20 % | 2 |",
        "| teacher | 99.0 (99.0 to 99.0) |  |  | 2 |",
        "| shifts | 0 | 3 |",
        "| HARD | 91.0 | 81.0 |",
        "| hard | `hardray distill --preset x seed=N` |",
    ):
        assert line in text, text


def test_conditions_that_were_seen_in_training_are_marked_and_left_out_of_a_mean(results: Path, tmp_path: Path):
    table = {
        "title": "Teachers",
        "command": "train-teacher --preset x",
        "seeds": [0, 1],
        "models": {"teacher": "their teacher", "student": "teacher"},
        "suites": ["clean"],
        "conditions": {"suite": "corruptions", "seen": ["noise"], "mark": "seen by `strong`"},
        "variants": {"plain": "", "strong": "data.hflip=0", "not-run": "seed=9"},
    }
    top1 = {"plain": {"noise": 20.0, "blur": 30.0, "fog": 60.0}, "strong": {"noise": 70.0, "blur": 50.0, "fog": 60.0}}
    for variant, found in top1.items():
        for seed in (0, 1):
            severities = {name: {"2": value - seed, "3": value + 1 - seed} for name, value in found.items()}
            (results / f"t-{variant}-s{seed}.json").write_text(
                json.dumps(
                    {
                        "models": {"student": {"clean": 80.0}} | ({} if seed else {"teacher": {"clean": 90.0}}),
                        "costs": {},
                        "by": {"student": {"corruptions": severities}},
                        "teacher_by": {} if seed else {"corruptions": {name: {"2": 75.0} for name in severities}},
                    }
                )
            )
    target = tmp_path / "page.md"
    page.write_page({"t": table}, target)
    start = target.read_text().split("| corruptions | their teacher | plain | strong |\n")[1]
    assert start.startswith(
        "|---|---|---|---|\n"
        "| noise \\* | 75.0 | 20.0 | 70.0 |\n"
        "| blur | 75.0 | 30.0 | 50.0 |\n"
        "| fog | 75.0 | 60.0 | 60.0 |\n"
        "| **all 3** | 75.0 | 36.7 | 60.0 |\n"
        "| **the 2 without \\*** | 75.0 | 45.0 | 55.0 |\n"
        "\n"
        "\\* seen by `strong`\n"
    )
    assert "| strong | `hardray train-teacher --preset x teacher.recipe.seed=N data.hflip=0` |" in start


def test_the_ranking_stands_beside_the_losses_of_the_students_of_each_augmentation(results: Path, tmp_path: Path):
    values = {"identity": (0.013, 1.1), "cutmix": (0.012, 1.0), "cutmix_pick": (0.010, 0.95)}
    tables = {
        "students": {"command": "distill --preset x", "seeds": [0], "variants": dict.fromkeys(values, "")},
        "t_stddev": {
            "title": "Scores",
            "command": "score-augmentations --preset x",
            "seeds": [0],
            "losses": "students",
            "variants": {"scores": ""},
        },
    }
    for name, (_, loss) in values.items():
        (results / f"students-{name}-s0.json").write_text(json.dumps({"test_loss": {"student": loss}}))
    scores = {name: {"t_stddev": score, "standard_error": 0.0001} for name, (score, _) in values.items()}
    (results / "t_stddev-scores-s0.json").write_text(json.dumps({"scores": scores}))
    text = page._ranking("t_stddev", tables["t_stddev"], read_rows({"t_stddev": tables["t_stddev"]}), tables, tmp_path)
    lines = text.splitlines()
    assert lines[4:7] == [
        "| cutmix_pick | 0.01000 | 0.00010 | 0.950 |",
        "| cutmix | 0.01200 | 0.00010 | 1.000 |",
        "| identity | 0.01300 | 0.00010 | 1.100 |",
    ]
    assert "Pearson correlation over 3 augmentations: 0.929" in text
    assert (tmp_path / "t_stddev.png").stat().st_size > 1000
