"""The same images of several runs, one run above the other, on the page of a comparison."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hard_ray.reports.comparison.groups import read_comparison
from hard_ray.reports.comparison.page import write_comparison
from hard_ray.reports.comparison.pictures import draw_pictures, same_pictures
from hard_ray.runs.snapshots import Snapshot, write_snapshot
from tests.reports.test_run_page import Page
from tests.runs.test_snapshots import snapshot, view
from tests.support.compared import finished


def with_pictures(path: Path, *given: Snapshot) -> Path:
    for made in given:
        write_snapshot(path / "gallery" / f"step-{made.step:08d}.npz", made)
    return path


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    one = with_pictures(finished(tmp_path / "one", "optim.lr=0.5", clean=90.0), snapshot(0), snapshot(40))
    other = with_pictures(finished(tmp_path / "other$x$", clean=91.0), snapshot(60, count=3))
    return [one, other, finished(tmp_path / "plain", "optim.lr=0.7", clean=80.0)]


def test_runs_stand_above_each_other_with_the_newest_pictures_of_the_same_images(runs: list[Path]):
    found = same_pictures(read_comparison(runs))
    assert {name: shown.step for name, shown in found.shown.items()} == {"one": 40, "other$x$": 60}
    assert found.left_out == []
    axes = draw_pictures(found).axes
    assert len(axes) == 3 * 3
    assert [axis.get_ylabel() for axis in axes[::3]] == ["original", "one\nupdate 40", "other$x$\nupdate 60"]
    drawn = np.asarray(axes[3].images[0].get_array())
    np.testing.assert_array_equal(drawn, found.shown["one"].augmented.images[0, 0])


def test_the_page_shows_them_and_loads_nothing(runs: list[Path], tmp_path: Path):
    page = Page(write_comparison(runs, tmp_path / "x.html").page.read_text())
    assert "The same images by each run's augmentor" in page.text
    assert all(reference.startswith(("#", "data:image/png")) for reference in page.references)


def test_other_images_and_damaged_pictures_are_named_and_not_shown(runs: list[Path], tmp_path: Path):
    with_pictures(runs[2], replace(snapshot(20), original=view(99, 5, 1)))
    (runs[1] / "gallery" / "step-00000060.npz").write_bytes(b"PK torn")
    found = same_pictures(read_comparison(runs))
    assert list(found.shown) == ["one"]
    assert len(found.left_out) == 2
    assert "is not a readable snapshot" in found.left_out[0]
    assert "plain is not shown: its pictures are of other images" in found.left_out[1]
    assert "other images" in Page(write_comparison(runs, tmp_path / "x.html").page.read_text()).text


def test_runs_without_pictures_have_no_section(runs: list[Path], tmp_path: Path):
    other = finished(tmp_path / "bare", "optim.lr=0.9", clean=80.0)
    page = Page(write_comparison([runs[2], other], tmp_path / "x.html").page.read_text())
    assert "Pictures" not in page.text
