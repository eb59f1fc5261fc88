"""The pages, from small result files that are made up."""

import json
from pathlib import Path

import pytest

from experiments import page, rows


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
        "columns": ["clean"],
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
    target, _ = page.write_pages({"t": table}, tmp_path)
    text = target.read_text()
    for line in (
        "| HARD | 91.0 (90.0 to 92.0) | 0.100 | 20 % | 2 |",
        "| teacher | 99.0 |  |  | 2 |",
        "| shifts | 0 | 3 |",
        "| HARD | 91.0 | 81.0 |",
        "```bash\nhardray distill --preset x seed=N\n```",
    ):
        assert line in text, text


def test_conditions_that_were_seen_in_training_are_marked_and_left_out_of_a_mean(results: Path, tmp_path: Path):
    table = {
        "title": "Teachers",
        "command": "train-teacher --preset x",
        "seeds": [0, 1],
        "models": {"teacher": "their teacher", "student": "teacher"},
        "columns": ["clean"],
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
    target, _ = page.write_pages({"t": table}, tmp_path)
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
    assert "```bash\nhardray train-teacher --preset x teacher.recipe.seed=N\n```" in start
    for line in ("| plain | nothing |", "| strong | `data.hflip=0` |"):
        assert line in start


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
    text = page._ranking("t_stddev", tables, page._results("t_stddev", tables), tmp_path)
    lines = text.splitlines()
    assert lines[4:7] == [
        "| cutmix_pick | 0.01000 | 0.00010 | 0.950 |",
        "| cutmix | 0.01200 | 0.00010 | 1.000 |",
        "| identity | 0.01300 | 0.00010 | 1.100 |",
    ]
    assert "Pearson correlation over 3 augmentations: 0.929" in text
    assert text.endswith("```bash\nhardray score-augmentations --preset x seed=N --output scores\n```\n")
    assert (tmp_path / "t_stddev.png").stat().st_size > 1000


def decisive(results: Path, seeds: dict[str, int]) -> dict:
    """Tables of which the first decides, with so many seeds for each variant; old rows beside them."""
    for number, (variant, count) in enumerate(seeds.items()):
        for seed in range(count):
            content = {
                "models": {
                    "teacher": {"clean": 90.0, "corruptions": 80.0},
                    "student": {"clean": 70.0 + number + 0.1 * seed, "corruptions": 50.0 + number},
                },
                "test_loss": {"teacher": 0.3, "student": 1.0 - 0.1 * number},
                "agreement": {"student": {"clean": 80.0, "corruptions": 60.0}},
                "costs": {"student": {"seconds": 123.4, "seconds_per_update": 0.1, "augmentor_share": 0.0}},
                "by": {"student": {}},
                "teacher_by": {},
            }
            (results / f"views-{variant}-s{seed}.json").write_text(json.dumps(content))
    (results / "old-kd-s0.json").write_text(
        json.dumps({"models": {"student": {"clean": 61.0}}, "costs": {}, "by": {}, "teacher_by": {}})
    )
    shared = {"command": "distill --preset x", "models": {"teacher": "teacher", "student": "student"}}
    return {
        "views": {
            **shared,
            "title": "Views",
            "seeds": [0, 1, 2],
            "columns": ["clean", "test loss", "corruptions", "agreement", "seconds"],
            "front": {"kd": "kd", "hard": ["hard"]},
            "variants": {"kd": "", "cutmix": "", "hard": "augmentor.kind=policy"},
        },
        "bounds": {
            **shared,
            "title": "Bounds",
            "seeds": [0, 1, 2],
            "columns": ["clean"],
            "variants": {"hard-x1": "=views/hard", "hard-x4": "augmentor.widen=4"},
        },
        "none": {**shared, "title": "Nothing yet", "seeds": [0], "columns": ["clean"], "variants": {"a": "", "b": ""}},
        "old": {
            **shared,
            "page": "history",
            "title": "Old rows",
            "seeds": [0],
            "columns": ["clean"],
            "variants": {"kd": "", "x": ""},
        },
    }


def test_the_page_opens_with_the_picture_and_the_verdict_and_old_rows_are_on_another(results: Path, tmp_path: Path):
    tables = decisive(results, {"kd": 3, "cutmix": 2, "hard": 3})
    main, history = page.write_pages(tables, tmp_path / "docs")
    assert main.name == "experiments.md"
    text = main.read_text()
    opening, rest = text.split("`make experiments` writes this page")
    assert opening.startswith("# Experiments\n\n**Views**\n\n![Clean accuracy and accuracy under corruptions of each ")
    assert (tmp_path / "docs/images/views.png").stat().st_size > 1000
    assert "**better in all three by more than" in opening
    assert opening.rstrip().endswith("Open: `cutmix` (2 of 3 seeds).")
    assert "| hard | 72.1 (72.0 to 72.2) | 0.800 | 52.0 | 80.0 | 123 | 0.100 | 0 % | 3 |" in rest
    assert "Old rows" not in text
    assert "[History](experiments-history.md)" in text
    assert "## Old rows" in history.read_text()
    assert "| student" not in history.read_text()
    assert "| kd | 61.0 |  |  | 1 |" in history.read_text()
    assert "Open: `x`." in history.read_text()


def test_a_table_shows_the_rows_of_another_and_names_the_open_ones_without_empty_lines(results: Path, tmp_path: Path):
    tables = decisive(results, {"kd": 3, "hard": 3})
    text = page.write_pages(tables, tmp_path / "docs")[0].read_text()
    bounds = text.split("## Bounds")[1]
    assert "| hard-x1 | 71.1 (71.0 to 71.2) | 0.100 | 0 % | 3 |" in bounds
    assert "| hard-x1 | the row `views-hard` |" in bounds
    assert [line for line in bounds.splitlines() if line.startswith("| hard-x4")] == [
        "| hard-x4 | `augmentor.widen=4` |"
    ]
    assert "Open: `hard-x4`." in bounds
    assert "## Nothing yet" not in text
    assert "No result yet: Nothing yet (`a`, `b`)." in text


def test_without_results_there_is_neither_picture_nor_verdict(results: Path, tmp_path: Path):
    tables = decisive(results, {})
    text = page.write_pages(tables, tmp_path / "docs")[0].read_text()
    assert text.startswith("# Experiments\n\n`make experiments`")
    assert not (tmp_path / "docs/images").exists()


@pytest.mark.parametrize(
    ("recorded", "said"),
    [
        ({}, None),
        (dict.fromkeys(("kd", "hard"), "2 cores, float32"), "All rows were run on 2 cores, float32."),
        (
            {"kd": "2 cores, float32", "hard": "H200, bfloat16"},
            "rows of one processor alone: `kd` on 2 cores, float32; `hard` on H200, bfloat16.",
        ),
        ({"hard": "H200, bfloat16"}, "`kd` on a processor that was not recorded; `hard` on H200, bfloat16."),
    ],
    ids=["older-rows", "one", "two", "one-of-them-older"],
)
def test_a_table_says_on_what_its_rows_were_run(
    results: Path, tmp_path: Path, recorded: dict[str, str], said: str | None
):
    tables = decisive(results, {"kd": 1, "hard": 1})
    for variant, processor in recorded.items():
        file = results / f"views-{variant}-s0.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"processor": processor}))
    views = page.write_pages(tables, tmp_path / "docs")[0].read_text().split("## Views")[1].split("## ")[0]
    assert ("run on" in views or "processor" in views) is (said is not None)
    assert said is None or said in views
