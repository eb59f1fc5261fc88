"""The budget of unreadable images."""

from pathlib import Path

import pytest

from hard_ray.config.data import DigitsData
from hard_ray.errors import DataError
from hard_ray.runs.bad_images import BadImages


def test_the_budget_is_the_share_that_the_configuration_allows():
    assert BadImages.allowed_by(DigitsData(max_bad_fraction=0.01), 250).limit == 2


def test_one_more_than_allowed_is_refused_with_the_numbers_and_the_first():
    bad = BadImages(2)
    bad.add(["b.png", "a.png"])
    bad.add(["b.png"])
    with pytest.raises(DataError, match=r"3 images cannot be read, more than the 2 .* first a\.png"):
        bad.add(["c.png"])


def test_the_error_names_the_file_that_lists_them(tmp_path: Path):
    bad = BadImages(0, {"b.png", "a.png"})
    bad.write(tmp_path / "bad_images.txt")
    assert (tmp_path / "bad_images.txt").read_text() == "a.png\nb.png\n"
    assert str(tmp_path) in str(bad.problem(listed_in=tmp_path / "bad_images.txt"))


def test_the_reason_of_the_first_is_said_where_it_is_known():
    bad = BadImages(1, {"c.png"})
    with pytest.raises(DataError, match=r"first a\.png \(its mode is F\)"):
        bad.add(["a.png"], {"a.png": "its mode is F"})
    with pytest.raises(DataError, match=r"first a\.png \(its mode is F\)"):
        bad.add(["b.png"])
