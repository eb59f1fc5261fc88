import json
from pathlib import Path

import pytest

from experiments import page, rows
from experiments.rows import read_rows, read_tables
from hard_ray.config.loader import load_config

FOLDERS = {
    name: f"/{name.lower()}" for name in ("CIFAR10", "CIFAR10_5K", "AUTOENCODER", "TEACHER", "STUDENT", "VQ", "DAD")
} | {"MNIST": "/m n"}


def test_every_row_is_a_valid_run_of_its_seed():
    for row in read_rows(read_tables()):
        verb, *arguments = row.arguments(FOLDERS)
        assert verb == row.verb
        assert verb in ("distill", "score-augmentations")
        assert arguments[0] == "--preset"
        config = load_config(preset=arguments[1], overrides=[word for word in arguments[2:] if "=" in word])
        assert config.seed == row.seed
        assert set(row.missing({})) <= set(FOLDERS)
        assert row.missing(FOLDERS) == []


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
