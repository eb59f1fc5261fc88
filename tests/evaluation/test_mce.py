import pytest

from hard_ray.evaluation.corruptions import NAMES
from hard_ray.evaluation.mce import ALEXNET_ERRORS, mce, mce_vs_teacher

LEVELS = ("1", "2", "3", "4", "5")


def test_alexnet_itself_has_an_mce_of_100():
    assert set(ALEXNET_ERRORS) == set(NAMES)
    by = {name: dict.fromkeys(LEVELS, 100.0 - error) for name, error in ALEXNET_ERRORS.items()}
    assert mce(by) == pytest.approx(100.0)


def test_mce_equals_a_sum_by_hand():
    by = {name: {"1": 80.0, "2": 70.0, "3": 60.0, "4": 50.0, "5": 40.0} for name in NAMES}
    by["fog"] = dict.fromkeys(LEVELS, 100.0)
    # errors 20 + 30 + 40 + 50 + 60 = 200 of AlexNet's five times its mean, but for fog, where there are none
    quotients = [200.0 / (5 * error) for name, error in ALEXNET_ERRORS.items() if name != "fog"]
    assert mce(by) == pytest.approx(100.0 * sum(quotients) / 15)


def test_there_is_no_mce_where_a_corruption_or_a_severity_is_missing():
    whole = {name: dict.fromkeys(LEVELS, 50.0) for name in NAMES}
    assert mce(whole) is not None
    assert mce({name: by for name, by in whole.items() if name != "snow"}) is None
    assert mce(whole | {"snow": {"3": 50.0}}) is None


def test_mce_against_the_teacher_equals_a_hand_computed_example():
    student = {"fog": {"1": 80.0, "5": 40.0}, "snow": {"1": 70.0, "5": 70.0}}
    teacher = {"fog": {"1": 90.0, "5": 70.0}, "snow": {"1": 85.0, "5": 75.0}}
    # fog: (20 + 60) / (10 + 30) = 2; snow: (30 + 30) / (15 + 25) = 1.5
    assert mce_vs_teacher(student, teacher) == pytest.approx(175.0)
    assert mce_vs_teacher(teacher, teacher) == pytest.approx(100.0)


def test_the_extra_corruptions_are_no_part_of_mce():
    student = {"fog": {"1": 80.0}, "spatter": {"1": 10.0}}
    teacher = {"fog": {"1": 90.0}, "spatter": {"1": 90.0}}
    assert mce_vs_teacher(student, teacher) == pytest.approx(200.0)
    assert mce_vs_teacher({"spatter": {"1": 10.0}}, {"spatter": {"1": 90.0}}) == pytest.approx(900.0)


def test_what_was_not_measured_alike_is_not_compared():
    student = {"fog": {"1": 80.0}}
    assert mce_vs_teacher(student, {"fog": {"2": 80.0}}) is None
    assert mce_vs_teacher(student, {"snow": {"1": 80.0}}) is None
    assert mce_vs_teacher(student, {"fog": {"1": 100.0}}) is None
