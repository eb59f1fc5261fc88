"""Damage at random: deterministic, within range, and stronger with severity."""

from typing import get_args

import numpy as np
import pytest
from PIL import Image

from hard_ray.config.view import DegradeConfig, DegradeKind
from hard_ray.data import degrade as room
from hard_ray.data.degrade import OPERATIONS, degrade
from hard_ray.evaluation import corruptions

KINDS = get_args(DegradeKind)


def draws(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def photograph(mode: str, width: int = 32, height: int = 32) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([60 + 4 * x, 200 - 4 * y, 128 + 90 * ((x // 4 + y // 4) % 2)], axis=2)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert(mode)


def damage(kind: str, severity: float, image: Image.Image, count: int = 40) -> float:
    """Mean distance of a damaged image from the original, over several draws."""
    before = np.asarray(image, dtype=float)
    after = [np.asarray(OPERATIONS[kind](image, severity, draws(seed)), dtype=float) for seed in range(count)]
    return float(np.mean([np.abs(each - before).mean() for each in after]))


def test_every_kind_has_its_operation():
    assert set(OPERATIONS) == set(KINDS)
    assert DegradeConfig().kinds == KINDS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("image", [photograph("RGB"), photograph("L"), photograph("RGB", 20, 9), photograph("L", 4, 4)])
def test_each_kind_keeps_mode_and_size_and_is_a_function_of_its_draws(kind: str, image: Image.Image):
    for seed in range(8):
        one, same = (OPERATIONS[kind](image, 1.0, draws(seed)) for _ in range(2))
        assert (one.mode, one.size) == (image.mode, image.size)
        assert np.array_equal(np.asarray(one), np.asarray(same))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_severity_zero_changes_nothing_and_more_changes_more(kind: str, mode: str):
    image = photograph(mode)
    assert damage(kind, 0.0, image) == 0
    weak, middle, strong = (damage(kind, severity, image) for severity in (0.2, 0.6, 1.0))
    assert 0.5 < weak < middle < strong


def test_contrast_and_pixels_are_those_of_the_common_corruption():
    """The package's own factors: 0.2 at severity 3 of contrast, 0.4 of pixelate."""
    image = photograph("RGB")
    for name, kind in (("contrast", room.contrast), ("pixelate", room.pixelate)):
        theirs = corruptions.Corruption(name, 3)(np.asarray(image).transpose(2, 0, 1)[None], np.array([0]))[0]
        ours = np.asarray(kind(image, 1.0, draws(0))).transpose(2, 0, 1)
        assert np.abs(ours.astype(int) - theirs).mean() < (1.01 if name == "contrast" else 12), name


def test_an_image_is_damaged_as_often_and_as_much_as_is_said(monkeypatch: pytest.MonkeyPatch):
    applied: list[tuple[str, float]] = []

    def recorded(kind: str) -> object:
        return lambda image, severity, _: (applied.append((kind, severity)), image)[1]

    monkeypatch.setattr(room, "OPERATIONS", {kind: recorded(kind) for kind in KINDS})
    config = DegradeConfig(prob=0.5, severity=(0.3, 0.4), kinds=("noise", "fog", "blur"), most=2)
    lengths = []
    for seed in range(400):
        applied.clear()
        degrade(photograph("RGB"), config, draws(seed))
        kinds = [kind for kind, _ in applied]
        assert len(set(kinds)) == len(kinds) and set(kinds) <= set(config.kinds)
        assert all(0.3 <= severity <= 0.4 for _, severity in applied)
        lengths.append(len(kinds))
    assert [150 < lengths.count(0) < 250, 60 < lengths.count(1) < 140, 60 < lengths.count(2) < 140] == [True] * 3


def test_an_image_that_is_not_damaged_is_returned_as_it_is():
    image = photograph("RGB")
    assert degrade(image, DegradeConfig(prob=0.0), draws(0)) is image
