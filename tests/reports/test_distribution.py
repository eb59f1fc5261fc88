import math

import numpy as np
import pytest

from hard_ray.augmentors.affine import PARAMETERS
from hard_ray.reports.run.distribution import UNITS, bounds_in_unit, unit_of
from tests.augmentors.made import KINDS, make


@pytest.mark.parametrize(
    ("name", "own", "readable", "label"),
    [
        ("shift_x", 0.5, 0.25, "shift to the right, share of the side"),
        ("rotation", math.pi / 6, 30.0, "rotation, degrees"),
        ("log_scale", math.log(1.25), 1.25, "scale, factor"),
        ("shear", math.tan(math.radians(15)), 15.0, "shear, degrees"),
        ("affine2.rotation", math.pi, 180.0, "affine2: rotation, degrees"),
        ("own_share", 0.3, 0.3, "share of the own image"),
        ("policy.p_log_gamma", 0.3, 0.3, "policy: gamma, probability"),
        ("log_pixelation", math.log(4), 4.0, "pixelation, pixels"),
        ("mix.wonder", 0.3, 0.3, "mix.wonder"),
    ],
)
def test_values_are_converted_and_unknown_ones_stay(name: str, own: float, readable: float, label: str):
    unit = unit_of(name)
    assert unit.convert(np.array([own])).item() == pytest.approx(readable)
    assert unit.label == label


def test_bounds_of_the_affine_augmentor_are_those_of_its_configuration():
    bounds = make("affine").bounds_of_samples()
    found = {name: bounds_in_unit(name, bounds[name]) for name in PARAMETERS}
    assert found["shift_x"] == pytest.approx((-0.25, 0.25))
    assert found["rotation"] == pytest.approx((-30, 30))
    assert found["log_scale"] == pytest.approx((0.8, 1.25))
    assert found["shear"] == pytest.approx((-15, 15))


@pytest.mark.parametrize("kind", KINDS)
def test_every_augmentors_draws_have_a_readable_name(kind: str):
    names = {name.rpartition(".")[2].removeprefix("p_") for name in make(kind).bounds_of_samples()}
    assert names <= UNITS.keys()
