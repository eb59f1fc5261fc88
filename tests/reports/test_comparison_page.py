"""The page of a comparison and its numbers, from run folders alone."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hard_ray_cli.main import app
from typer.testing import CliRunner

from hard_ray.errors import RunFolderError
from hard_ray.reports.comparison.page import write_comparison
from tests.reports.test_run_page import Page
from tests.support.compared import finished, going_on, suite


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    shifts = {"shift": {"0": 90.0, "4": 60.0}}
    conditions = {"fog": {"1": 70.0, "3": 50.0}, "snow": {"1": 60.0, "3": 40.0}}
    made = [
        finished(
            root / f"{name}-s{seed}",
            f"seed={seed}",
            f"optim.lr={lr}",
            clean=top1 + seed * lr,
            shifts=suite(top1 - 10, by=shifts),
            corruptions=suite(top1 - 20, by=conditions),
        )
        for name, lr, top1 in (("slow<b>", 0.5, 90.0), ("fast", 0.75, 92.0))
        for seed in range(3)
    ]
    return [*made, going_on(root / "long", "optim.steps=99", validation={20: 61.5})]


def test_the_page_is_whole_and_loads_nothing_from_anywhere(runs: list[Path], tmp_path: Path):
    written = write_comparison(runs, tmp_path / "deep" / "x.html")
    assert (written.page, written.numbers) == (tmp_path / "deep" / "x.html", tmp_path / "deep" / "x.json")
    text = written.page.read_text()
    page = Page(text)
    assert all(reference.startswith("#") for reference in page.references)
    assert not {"script", "link", "iframe", "object", "img", "b"} & set(page.tags)
    assert "http" not in text
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert page.tags.count("svg") == 4  # accuracy, validation, shifts, corruptions
    assert "prefers-color-scheme: dark" in text
    for expected in ("slow<b>390.5 (90.0 to 91.0)", "optim.lr0.50.750.02", "fast - slow<b>clean+2.25", "fog60.060.0"):
        assert expected in page.text, expected
    assert "long is not finished: 20 updates" in page.text
    assert "as few as 3 seeds" in page.text


def test_the_numbers_are_beside_the_page(runs: list[Path], tmp_path: Path):
    numbers = json.loads(write_comparison(runs, tmp_path / "compare.html").numbers.read_text())
    assert numbers.keys() == {"groups", "differing", "pairs", "warnings", "states", "cautions"}
    slow, fast, long = numbers["groups"]
    assert slow["metrics"]["top1/clean"] == {"mean": 90.5, "smallest": 90.0, "largest": 91.0, "n": 3}
    assert fast["runs"][2]["suites"]["corruptions"]["by"]["fog"] == {"1": 70.0, "3": 50.0}
    assert long["runs"][0]["validation"] == [{"step": 20, "val/top1": 61.5}]
    assert not long["runs"][0]["finished"]
    assert numbers["differing"]["optim.lr"] == {"slow<b>": 0.5, "fast": 0.75, "long": 0.02}
    pair = numbers["pairs"][0]
    assert (pair["first"], pair["second"], pair["suite"], pair["test"], pair["n"]) == (
        "slow<b>",
        "fast",
        "clean",
        "paired",
        [3, 3],
    )
    # differences 2, 2.25, 2.5: their mean over its standard error is 2.25 / (0.25 / sqrt 3)
    ratio = 2.25 / (0.25 / 3**0.5)
    assert pair["p"] == pytest.approx(1 - ratio / (2 + ratio**2) ** 0.5)


def test_the_command_prints_the_tables_and_writes_beside_the_runs(runs: list[Path]):
    done = CliRunner().invoke(app, ["compare", *map(str, runs)], env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.stderr
    text = words(done.stdout)
    for expected in ("90.5", "(90.0 to 91.0)", "optim.lr", "fast - slow<b>", "+2.25", "paired", "long is not finished"):
        assert expected in text, text
    assert str(runs[0].parent / "compare.html") in done.stdout
    assert (runs[0].parent / "compare.json").is_file()


def test_what_was_measured_differently_is_a_warning_by_name(tmp_path: Path):
    run = finished(tmp_path / "one", clean=90.0)
    other = finished(tmp_path / "other", "optim.lr=1", split="val", clean=80.0)
    done = CliRunner().invoke(app, ["compare", str(run), str(other)])
    assert done.exit_code == 0
    assert "split is test in one, but val in other" in words(done.stderr)
    assert "not comparable" in Page((tmp_path / "compare.html").read_text()).text


@pytest.mark.parametrize(
    ("others", "expected"), [([], "needs at least two runs"), (["no/such"], "holds no run"), (["."], "is given twice")]
)
def test_mistakes_are_messages(tmp_path: Path, others: list[str], expected: str):
    run = finished(tmp_path / "one", clean=90.0)
    done = CliRunner().invoke(app, ["compare", str(run), *(str(run / other) for other in others)])
    assert done.exit_code == 1
    assert expected in words(done.stderr)
    assert not (tmp_path / "compare.html").exists()


@pytest.mark.parametrize("to", ["x.json", "", "file/x.html"])
def test_a_page_that_cannot_be_written_is_a_message(runs: list[Path], tmp_path: Path, to: str):
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="cannot be"):
        write_comparison(runs, tmp_path / to)


def test_nothing_heavy_is_needed(runs: list[Path], tmp_path: Path):
    code = (
        "import sys; from hard_ray.api import compare\n"
        f"compare({[str(run) for run in runs]!r}, to={str(tmp_path / 'x.html')!r})\n"
        "print([m for m in ('torch', 'ray', 'mlflow', 'timm') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
