from pathlib import Path

import pytest

from hard_ray.config.evaluation import evaluation_settings, read_suites
from hard_ray.errors import ConfigError


def test_suites_and_published_sets_are_distinguished():
    found = read_suites(["clean", "imagenet-c=/data/c", "adversarial"])
    assert found == {"suites": ["clean", "adversarial"], "published": {"imagenet-c": "/data/c"}}
    assert evaluation_settings(found).names == ("clean", "adversarial", "imagenet-c")
    assert evaluation_settings(found).published["imagenet-c"] == Path("/data/c")


def test_every_mistake_in_the_suites_is_reported_at_once():
    with pytest.raises(ConfigError) as error:
        read_suites(["cleen", "imagenet-a", "shifts=/data"])
    text = str(error.value)
    assert "'cleen' is not a suite; did you mean clean?" in text
    assert "imagenet-a is a published set; give its folder: imagenet-a=FOLDER" in text
    assert "shifts is made of the data's own images and takes no folder, got '/data'" in text


def test_a_severity_out_of_range_is_refused_by_its_place():
    with pytest.raises(ConfigError, match=r"severities\.1.*got 6"):
        evaluation_settings({"severities": [1, 6]})


def test_the_attack_is_ten_steps_of_two_in_a_ball_of_eight():
    attack = evaluation_settings({}).attack
    assert (attack.norm, attack.steps, attack.random_start) == ("linf", 10, 1.0)
    assert (attack.eps, attack.step_size) == (8 / 255, 2 / 255)
    assert evaluation_settings({"attack": {"eps": 0.5}}).attack.step_size == 2 / 255
