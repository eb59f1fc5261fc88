"""The name of a cached teacher."""

from __future__ import annotations

import pytest

from hard_ray.data.sources.build import build_index
from hard_ray.distillation.teacher_cache import cached_teacher
from tests.support.helpers import tiny_config


def name(*overrides: str) -> str:
    config = tiny_config(*overrides)
    return cached_teacher(config, build_index(config.data)).name


@pytest.mark.parametrize(
    ("overrides", "digest"),
    [
        ((), "7ff1268a40a41a1c"),
        (("teacher.recipe.opt=sgd", "teacher.recipe.clip_grad=1.0", "data.hflip=0.5"), "d057c3bd2378bc2e"),
    ],
)
def test_teachers_of_earlier_versions_are_found(overrides: tuple[str, ...], digest: str):
    """A key with its default does not rename a teacher that was trained before there was such a key."""
    assert name(*overrides) == digest


@pytest.mark.parametrize(
    "key",
    [
        "accumulate=2",
        "layer_decay=0.9",
        "param_groups=[{match: '*', lr_scale: 2.0}]",
        "opt_kwargs={amsgrad: true}",
        "clip_grad=1.0",
        "lr_cycle_limit=2",
        "warmup_prefix=true",
    ],
)
def test_each_way_of_training_has_its_own_teacher(key: str):
    assert name(f"teacher.recipe.{key}") != name()
