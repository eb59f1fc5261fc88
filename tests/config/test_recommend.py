"""What is compared by a recommendation, and how long its pilots are."""

from __future__ import annotations

import pytest

from hard_ray.config.loader import load_config
from hard_ray.config.recommend import (
    CONFIGURED,
    LEARNED,
    as_pilot,
    fixed_candidates,
    plain_kd,
    read_budget,
    recommend_settings,
    references,
    scored,
    variants,
    with_teacher,
)
from hard_ray.config.run import RunConfig, without_extras
from hard_ray.errors import ConfigError


def config_of(*overrides: str) -> RunConfig:
    return load_config(preset="digits", overrides=overrides)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("1.5h", 5400), (" 2 m ", 120)])
def test_a_budget_is_a_time(text: str, seconds: float):
    assert read_budget(text) == seconds


@pytest.mark.parametrize("text", ["20", "m", "0m", "-5m", "5 days", "1h30m"])
def test_what_is_no_budget_is_refused(text: str):
    with pytest.raises(ConfigError, match="want a time such as 90s, 20m or 1.5h"):
        read_budget(text)


def test_options_are_checked_together():
    with pytest.raises(ConfigError) as caught:
        recommend_settings(budget_s=60, suites=["clear"], images=0)
    assert {problem.partition(":")[0] for problem in caught.value.problems} >= {"suites.0", "images"}


def test_every_learned_kind_is_a_candidate_with_the_objective_of_hard():
    found = fixed_candidates(config_of("objective.kind=kd", "augmentor.kind=identity", "objective.temperature=2"))
    assert tuple(found) == LEARNED
    for kind, made in found.items():
        assert (made.augmentor.kind, made.objective.kind, made.objective.temperature) == (kind, "hard", 2)


def test_the_own_augmentor_is_a_candidate_with_its_settings():
    own = config_of("augmentor.max_shift=0.1")
    assert fixed_candidates(own)["affine"] == without_extras(own)
    cut = config_of("objective.kind=kd", "augmentor={kind: cutout, size: 0.5}")
    assert fixed_candidates(cut)[CONFIGURED] == without_extras(cut)


def test_references_are_the_controls_of_a_run():
    own = config_of("objective.temperature=3", "experiment.controls=[kd]")
    found = references(own)
    assert (found["kd"].objective.kind, found["kd"].objective.temperature) == ("kd", 3)
    assert found["labels_only"].objective.kind == "cross_entropy"
    assert {made.augmentor.kind for made in found.values()} == {"identity"}
    assert all(made.experiment.controls == () for made in found.values())


def test_plain_kd_keeps_the_settings_of_a_configuration_that_is_kd():
    assert plain_kd(config_of("objective={kind: kd, alpha: 0.5}", "augmentor.kind=identity")).objective.alpha == 0.5


def test_a_configuration_without_teacher_stands_for_plain_kd():
    labels = config_of("objective.kind=cross_entropy", "augmentor.kind=identity")
    assert with_teacher(labels).objective.kind == "kd"


def test_augmentors_are_scored_on_unmixed_images_with_a_draw_for_each():
    found = scored(config_of("data.mix.mixup=0.8"))
    assert found.data.mix is None
    assert found.augmentors["cutout"].per == "image"
    assert found.augmentors["cutmix_pick"].augmentor.per == "image"


@pytest.mark.parametrize("updates", [7, 20, 333])
def test_a_pilot_is_the_whole_schedule_in_fewer_updates(updates: int):
    own = config_of("optim.steps=1000", "optim.stretch=2", "optim.warmup_epochs=3")
    made = as_pilot(own, updates=updates, total=2000, seed=5)
    assert made.optim.total_updates(40) == updates
    assert made.optim.stretch / own.optim.stretch == pytest.approx(updates / 2000)  # the warm-up shrinks with it
    assert (made.seed, made.validation.suites, made.tracking.enabled) == (5, ("clean",), False)


def test_other_strengths_and_temperatures_are_relative_to_the_own_ones():
    found = variants(config_of("augmentor.strength=0.8", "objective.temperature=3"))
    assert list(found) == [
        "augmentor.strength=0.4",
        "augmentor.strength=0.6",
        "objective.temperature=1.5",
        "objective.temperature=6",
    ]
    assert list(variants(references(config_of())["kd"])) == ["objective.temperature=2", "objective.temperature=8"]
