"""Presets of published recipes: the settings that make them, against the papers' own figures."""

import re

import pytest
import timm

from hard_ray.config.loader import load_config
from hard_ray.config.presets import preset_description, preset_names, preset_text
from hard_ray.config.run import RunConfig

PUBLISHED = {
    "kd-thrives-cifar100": ("70.99 %", "2012.02909"),
    "kd-thrives-imagenet": ("71.05 %", "2012.02909"),
    "dad-vit": ("81.9 %", "2311.01441"),
    "dad-resnet50": ("7.7 %", "2311.01441"),
}
"""The figure of each recipe, and the paper that it is from."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_first_line_has_the_published_figure_and_its_source(name: str):
    description = preset_description(name)
    for words in PUBLISHED[name]:
        assert words in description
    assert len(description) <= 120


def test_every_preset_that_quotes_a_paper_is_in_the_list_above():
    quoting = {name for name in preset_names() if re.search(r"published \(arXiv", preset_description(name))}
    assert quoting == set(PUBLISHED)


@pytest.mark.parametrize("name", preset_names())
def test_pretrained_networks_of_presets_have_weights_in_timm(name: str):
    config = load_config(preset=name)
    for network in (config.teacher, config.student):
        if network.pretrained:
            assert timm.is_model_pretrained(network.model), network.model


def of_the_schedule(config: RunConfig) -> tuple:
    optim = config.optim
    return (optim.opt, optim.lr, optim.momentum, optim.sched, optim.decay_milestones, optim.decay_rate, optim.epochs)


def test_kd_thrives_is_trained_by_the_papers_schedule():
    cifar, imagenet = load_config(preset="kd-thrives-cifar100"), load_config(preset="kd-thrives-imagenet")
    assert of_the_schedule(cifar) == ("momentum", 0.05, 0.9, "multistep", (150, 180, 210), 0.1, 240)
    assert of_the_schedule(imagenet) == ("momentum", 0.1, 0.9, "multistep", (30, 60, 90), 0.1, 100)
    assert (cifar.optim.batch_size, imagenet.optim.batch_size) == (64, 256)
    for config in (cifar, imagenet):
        assert (config.objective.kind, config.objective.temperature, config.objective.alpha) == ("kd", 4.0, 0.9)
        assert config.optim.weight_decay_exclude == "nothing"
    shared = type(cifar.optim).model_fields
    recipe = {key: getattr(cifar.teacher.recipe, key) for key in shared}
    assert recipe == cifar.optim.model_dump()
    picked = cifar.augmentor
    assert (picked.kind, picked.pool, picked.score, picked.temperature) == ("pick", 2, "kl", 4.0)
    assert (picked.augmentor.kind, picked.augmentor.per, imagenet.augmentor.per) == ("cutmix", "batch", "batch")


def test_the_comments_of_kd_thrives_name_overrides_that_hold_together():
    texts = {name: preset_text(name) for name in PUBLISHED}
    longer = ["optim.stretch=2", "augmentor.kind=pick", "augmentor.score=kl"]
    assert " ".join(longer) in texts["kd-thrives-imagenet"]
    config = load_config(preset="kd-thrives-imagenet", overrides=longer)
    assert config.optim.total_updates(1000) == 200_000
    assert (config.augmentor.kind, config.augmentor.augmentor.kind) == ("pick", "cutmix")
    assert "runtime.num_workers=1 optim.accumulate=8" in texts["dad-vit"]
    alone = load_config(preset="dad-vit", overrides=["runtime.num_workers=1", "optim.accumulate=8"]).optim
    assert alone.batch_size // alone.accumulate == 32


def test_dad_vit_is_the_released_recipe():
    config = load_config(preset="dad-vit")
    optim, augment = config.optim, config.data.augment
    assert (optim.opt, optim.lr, optim.weight_decay, optim.epochs, optim.warmup_epochs) == ("adamw", 1e-4, 0.05, 30, 5)
    assert (optim.batch_size, config.runtime.num_workers) == (8 * 32, 8)
    assert (optim.smoothing, optim.model_ema, optim.model_ema_decay) == (0.1, True, 0.99992)
    assert (augment.auto_augment, augment.reprob) == ("rand-m9-mstd0.5-inc1", 0.25)
    assert config.student.model_kwargs == {"drop_path_rate": 0.25}
    assert (config.objective.kind, config.objective.weighting, config.augmentor.join) == ("dad", "released", "either")
