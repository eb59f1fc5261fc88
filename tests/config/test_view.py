"""The words of `data.augment`: what timm would read otherwise, or not at all, is refused."""

import pytest

from hard_ray.config.autoencoder_training import autoencoder_run
from hard_ray.config.loader import load_config, validate
from hard_ray.config.safe_yaml import dump_yaml, parse_yaml
from hard_ray.config.scoring import score_run
from hard_ray.config.view import AugmentConfig, describe_augment
from hard_ray.errors import ConfigError

COLOUR = ("data.kind=image_folder", "data.path=/", "data.img_size=32")


@pytest.mark.parametrize(
    "policy",
    [
        "rand",
        "rand-m9-mstd0.5-inc1",
        "rand-n3-p0.7-mmax30-m15-tweights",
        "rand-m9-t3a",
        "augmix-m5-w4-d2",
        "augmix-a0.5-b1-mstd1",
        "original",
        "originalr-mstd0.5",
        "v0",
        "v0r",
        "3a",
    ],
)
def test_timms_policies_are_taken_and_timm_takes_them(policy: str):
    from timm.data.transforms_factory import create_transform

    assert AugmentConfig(auto_augment=policy).auto_augment == policy
    create_transform(32, is_training=True, auto_augment=policy)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("randaug", "got 'randaug'; want a policy of timm that begins with rand, augmix, original"),
        ("rand-m9.5", "'m9.5' is no section of it"),
        ("rand-m9-m7", "'m7' comes twice"),
        ("rand-w0", "'w0' is no section of it"),
        ("rand-tweight", "'tweight' is no section of it"),  # timm takes its default set instead
        ("rand-mstdinf", "'mstdinf' is no section of it"),  # timm passes over it
        ("rand-inc", "'inc' is no section of it; want rand with mINTEGER"),
        ("augmix-w0", "'w0' is no section of it"),
        ("original-m9", "'m9' is no section of it; want original with mstdNUMBER"),
        ("", "want a policy of timm"),
    ],
)
def test_a_policy_that_timm_would_read_otherwise_is_refused(policy: str, words: str):
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[*COLOUR, f"data.augment.auto_augment='{policy}'"])
    assert "data.augment.auto_augment: " in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("augment", "words"),
    [
        ("{auto_augment: v0, color_jitter: 0.4}", "timm leaves the jitter out beside a policy other than 3a"),
        ("{color_jitter_prob: 0.4}", "color_jitter_prob has no color_jitter to apply"),
        ("{color_jitter: [0.4, 0.4]}", "color_jitter: got [0.4, 0.4]; want a number, or brightness"),
        ("{color_jitter: [0.4, 0.4, 0.4, 0.6]}", "the hue, at most 0.5"),
        ("{color_jitter: -1}", "each 0 or more"),
        ("{color_jitter: much}", "color_jitter: got 'much'"),
        ("{splits: 3}", "would be equal views"),
        ("{splits: 1, grayscale: 0.5}", "splits: got 1; want 0 for one view, or 2 to 16"),
        ("{degrade: {severity: [0.5, 0.2]}}", "degrade: severity must be two rising numbers"),
        ("{degrade: {kinds: [fog], most: 2}}", "most 2 is more than the 1 of kinds"),
        ("{degrade: {kinds: [fog, fog]}}", "names a kind twice"),
        ("{degrade: {kinds: [rain]}}", "kinds.0: Input should be 'noise'"),
        ("{reprobe: 0.5}", "data.augment.reprobe: unknown key; did you mean data.augment.reprob?"),
        ("{remode: black}", "remode: Input should be 'const'"),
    ],
)
def test_what_contradicts_itself_is_refused(augment: str, words: str):
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[*COLOUR, f"data.augment={augment}"])
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.in_chans=1", "data.augment.grayscale=0.1"], "augment.grayscale changes colours, and in_chans is 1"),
        (["data.in_chans=1", "data.augment.color_jitter=[0, 0, 0, 0.1]"], "augment.color_jitter of the hue changes"),
        (["data.img_size=11", "data.augment.gaussian_blur=0.1"], "use an img_size of 12 or more"),
    ],
)
def test_what_the_images_do_not_allow_is_refused(overrides: list[str], words: str):
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[*COLOUR, *overrides])
    assert words in str(caught.value)


def test_jitter_goes_with_3a_alone():
    for policy in ("3a", "rand-m9-t3a"):
        assert AugmentConfig(auto_augment=policy, color_jitter=(0.3, 0.3, 0.3)).color_jitter == (0.3, 0.3, 0.3)


def test_a_view_is_saved_and_loaded_and_said():
    text = "{auto_augment: 3a, color_jitter: [0.1, 0.2, 0.3], reprob: 0.25, degrade: {kinds: [fog], most: 1}}"
    config = load_config(overrides=[*COLOUR, f"data.augment={text}"])
    assert validate([parse_yaml(dump_yaml(config), "saved")], source="saved") == config
    said = "auto_augment 3a, color_jitter [0.1, 0.2, 0.3], degrade (kinds [fog], most 1), reprob 0.25"
    assert describe_augment(config.data.augment) == said
    assert describe_augment(AugmentConfig()) == "no operation"


def test_splits_are_refused_where_one_view_is_used():
    jsd = ("objective={kind: cross_entropy, jsd: 12}", "augmentor={kind: identity}")
    config = load_config(overrides=[*COLOUR, "data.augment={auto_augment: augmix, splits: 3}", *jsd])
    with pytest.raises(ConfigError, match=r"data.augment.splits 3 makes views for objective.jsd"):
        autoencoder_run(config, {"kind": "kl"})
    with pytest.raises(ConfigError, match=r"use data.augment.splits=0 here"):
        score_run(config, {"flip": {"kind": "flip"}})


def test_mixing_is_refused_where_no_classifier_is_trained():
    config = load_config(overrides=["data.mix.mixup=0.8"])
    with pytest.raises(ConfigError, match=r"classifiers, which are not trained here; use data.mix=null"):
        autoencoder_run(config, {"kind": "kl"})
    with pytest.raises(ConfigError, match=r"use data.mix=null"):
        score_run(config, {"flip": {"kind": "flip"}})
