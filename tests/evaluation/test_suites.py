import sys
from typing import get_args

import pytest

from hard_ray.config.validation import Suite
from hard_ray.errors import HardrayError
from hard_ray.evaluation.changes import DiagonalShift, Rotation, Shift, Unchanged
from hard_ray.evaluation.suites import check_suites, conditions


def test_the_shifted_suite_is_four_corners_at_two_distances():
    found = conditions("shifted", img_size=28)
    assert [(c.severity, c.change) for c in found] == [
        *(("2", Shift(right, down)) for right, down in ((-2, -2), (-2, 2), (2, -2), (2, 2))),
        *(("4", Shift(right, down)) for right, down in ((-4, -4), (-4, 4), (4, -4), (4, 4))),
    ]
    assert {c.severity for c in conditions("shifted", img_size=224)} == {"16", "32"}


@pytest.mark.parametrize(("side", "distance"), [(28, 3), (32, 3), (224, 24), (14, 2), (4, 1)])
def test_translate_is_three_pixels_of_28(side: int, distance: int):
    (condition,) = conditions("translate", img_size=side)
    assert condition.change == DiagonalShift(distance)


@pytest.mark.parametrize(
    ("side", "distances"),
    [(28, [0, 1, 2, 3, 4, 5, 6]), (224, [0, 8, 16, 24, 32, 40, 48]), (16, [0, 1, 2, 3]), (4, [0, 1])],
)
def test_the_curve_of_shifts_is_six_pixels_of_28_in_distinct_steps(side: int, distances: list[int]):
    found = conditions("shifts", img_size=side)
    assert [c.severity for c in found] == [str(distance) for distance in distances]
    assert found[0].change == Unchanged()
    assert [c.change for c in found[1:]] == [DiagonalShift(distance) for distance in distances[1:]]


def test_the_curve_of_rotations_holds_the_unturned_images():
    changes = {c.severity: c.change for c in conditions("rotations", img_size=28)}
    assert changes.pop("0") == Unchanged()
    assert changes == {str(degrees): Rotation(degrees) for degrees in (-45, -30, -15, 15, 30, 45)}


def test_the_corruptions_are_the_packages_fifteen_common_ones():
    package = pytest.importorskip("imagecorruptions")
    found = conditions("corruptions", img_size=28)
    assert [c.name for c in found] == package.get_corruption_names("common")
    assert {c.severity for c in found} == {"3"}


def test_no_suite_has_two_conditions_of_the_same_change():
    for suite in get_args(Suite):
        changes = [c.change for c in conditions(suite, img_size=28)]
        assert len(changes) == len(set(changes)), suite


def test_a_suite_whose_package_is_missing_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(
        HardrayError, match=r"pip install '\.\[corruptions\]'` in a clone.*or leave out the suites corruptions"
    ):
        check_suites(("clean", "corruptions"))
    check_suites(("clean", "shifts"))


def test_corruptions_are_made_at_every_severity_asked_for():
    found = conditions("corruptions", img_size=28, severities=(1, 3, 5))
    assert len({c.change for c in found}) == len(found) == 45
    assert {c.severity for c in found if c.name == "fog"} == {"1", "3", "5"}
