"""The tables of a comparison in a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from hard_ray.reports.comparison.groups import read_comparison
from tests.cli.commands import invoke
from tests.support.compared import finished


def test_the_tables_of_many_runs_with_long_names_fit_and_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    kinds = [(f"strength-{n}-of-a-run-with-a-long-name", f"augmentor.strength=0.{n + 1}") for n in range(6)]
    runs = [
        finished(tmp_path / f"{name}-s{seed}", f"seed={seed}", setting, clean=90.0 + seed, shifted=50.0)
        for name, setting in kinds
        for seed in (0, 1)
    ]
    done = invoke("compare", *map(str, runs))
    assert done.exit_code == 0, done.output
    tables = [line for line in done.output.splitlines() if line[:1] in "┃│┏┡└"]
    assert max(map(len, tables)) <= 80
    assert "…" not in done.output
    cells = done.output.replace("\n", "").replace("│", "").replace(" ", "")
    assert all(str(n) in cells for n in range(6))


def test_runs_of_one_name_in_two_folders_have_distinct_heads(tmp_path: Path):
    runs = [
        finished(tmp_path / "a" / "hard", clean=90.0),
        finished(tmp_path / "b" / "hard", "optim.lr=0.5", clean=91.0),
    ]
    names = [group.name for group in read_comparison(runs).groups]
    assert len(set(names)) == 2, names
