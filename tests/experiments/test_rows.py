import json
from pathlib import Path

import pytest

from experiments import page, rows
from experiments.rows import read_rows, read_tables
from hard_ray.config.loader import load_config

FOLDERS = {"MNIST": "/m n", "CIFAR10": "/c", "AUTOENCODER": "/a"}


def test_every_row_is_a_valid_run_of_its_seed():
    for row in read_rows(read_tables()):
        verb, *arguments = row.arguments(FOLDERS)
        assert verb == "distill"
        assert arguments[0] == "--preset"
        config = load_config(preset=arguments[1], overrides=arguments[2:])
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
