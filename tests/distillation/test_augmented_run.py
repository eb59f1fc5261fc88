"""Runs on a stronger training view: they resume to the bit, and their teachers are cached apart."""

import json
from pathlib import Path

import pytest

from hard_ray.data.sources.build import build_index
from hard_ray.distillation import teacher_cache
from hard_ray.distillation.teacher_cache import cached_teacher
from tests.support.helpers import assert_equal_bits, killed_after, run_here, student_weights, tiny_config

AUGMENT = "data.augment={auto_augment: rand-m9-mstd0.5-inc1, reprob: 0.5, degrade: {prob: 0.5}}"
KD = ("objective={kind: kd}", "augmentor={kind: identity}", "optim.steps=6")


def test_a_run_on_augmented_images_resumes_to_the_bit(tmp_path: Path):
    config = tiny_config(AUGMENT, *KD)
    run_here(config, tmp_path / "straight")
    run_here(tiny_config(*KD), tmp_path / "plain")
    with pytest.raises(AssertionError, match="tensors differ"):
        assert_equal_bits(student_weights(tmp_path / "straight"), student_weights(tmp_path / "plain"))
    with killed_after(5):
        run_here(config, tmp_path / "resumed")
    run_here(config, tmp_path / "resumed")
    assert_equal_bits(student_weights(tmp_path / "straight"), student_weights(tmp_path / "resumed"))


def test_the_cache_of_teachers_knows_the_view_and_old_teachers_stay_known(monkeypatch: pytest.MonkeyPatch):
    plain, strong = tiny_config(), tiny_config(AUGMENT)
    index, hashed = build_index(plain.data), []
    dumps = json.dumps

    def seen(values: object, **options: object) -> str:
        hashed.append(values)
        return dumps(values, **options)

    monkeypatch.setattr(teacher_cache.json, "dumps", seen)
    folders = {cached_teacher(config, index) for config in (plain, strong, tiny_config("data.augment={}"))}
    assert len(folders) == 3
    assert "augment" not in hashed[0]["data"]  # as before there was this key
    assert hashed[1]["data"]["augment"]["reprob"] == 0.5
