"""Parameter groups, clipping, schedules and the moving average against timm's own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.models import model_parameters
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3, dispatch_clip_grad
from torch import nn

from hard_ray.config.controller import Phase
from hard_ray.config.networks import StudentConfig
from hard_ray.config.objective import CrossEntropyObjective
from hard_ray.config.optim import OptimConfig
from hard_ray.distillation.checkpoints import CheckpointStore
from hard_ray.distillation.optimisers import (
    Clipping,
    build_average,
    build_optimizer,
    build_scheduler,
    first_cycle,
    largest_rate,
)
from hard_ray.errors import ModelError
from hard_ray.networks.network import Network, build_student
from tests.distillation.test_step import SPEC, batch, nets, updater
from tests.support.helpers import assert_equal_bits, run_here, student_weights, tiny_config

TINY_VIT = {"patch_size": 7, "embed_dim": 16, "depth": 3, "num_heads": 2}


def vit() -> Network:
    """A ViT of three blocks for images of 28 pixels."""
    torch.manual_seed(0)
    return build_student(StudentConfig(model="vit_tiny_patch16_224", model_kwargs=TINY_VIT), SPEC)


def optim(**values: Any) -> OptimConfig:
    return OptimConfig(**{"opt": "adamw", "lr": 1e-2, "weight_decay": 0.1, "steps": 10, **values})


def described(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[tuple[list[str], float, float]]:
    """Of each group: the names of its parameters, its factor of the learning rate, and its weight decay."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [
        ([names[id(parameter)] for parameter in group["params"]], group.get("lr_scale", 1.0), group["weight_decay"])
        for group in optimizer.param_groups
    ]


@pytest.mark.parametrize(
    "flags",
    [
        {"layer_decay": 0.5},
        {"layer_decay": 0.5, "layer_decay_min_scale": 0.2},
        {"layer_decay": 0.5, "layer_decay_no_opt_scale": 0.2},
        {"layer_decay": 0.7, "weight_decay": 0.0},
        {"weight_decay_exclude": "model"},
        {"weight_decay_exclude": "model", "opt": "sgd", "weight_decay": 0.0},
    ],
)
def test_groups_are_those_that_timms_own_flags_make(flags: dict[str, Any]):
    network, other = vit(), vit()
    config = optim(**flags)
    ours = build_optimizer(network, config)
    named = {key: value for key, value in flags.items() if key != "weight_decay_exclude"}
    arguments = argparse.Namespace(**{"opt": "adamw", "lr": 1e-2, "momentum": 0.9, "weight_decay": 0.1, **named})
    theirs = create_optimizer_v2(other.model, **optimizer_kwargs(arguments))
    assert described(ours, network.model) == described(theirs, other.model)
    assert ours.defaults == theirs.defaults
    trained = [parameter.requires_grad for parameter in network.parameters()]
    assert trained == [parameter.requires_grad for parameter in other.parameters()]
    assert all(trained) == ("layer_decay_no_opt_scale" not in flags)


def test_without_new_keys_groups_go_by_shape_alone_as_they_always_did():
    network = vit()
    ours = build_optimizer(network, optim())
    theirs = create_optimizer_v2(network, opt="adamw", lr=1e-2, weight_decay=0.1, momentum=0.9)
    assert described(ours, network) == described(theirs, network)
    (decayed,) = [names for names, _, decay in described(ours, network.model) if decay]
    assert {"pos_embed", "cls_token"} <= set(decayed)


def test_nothing_may_be_excluded_from_weight_decay():
    network = vit()
    groups = described(build_optimizer(network, optim(weight_decay_exclude="nothing")), network.model)
    assert [(len(names), decay) for names, _, decay in groups] == [(len(list(network.parameters())), 0.1)]


def test_a_parameter_belongs_to_the_first_group_that_matches_and_keeps_the_scale_of_its_layer():
    network = vit()
    rules = ({"match": "head.*", "lr_scale": 10.0}, {"match": "*.bias", "weight_decay": 0.3})
    optimizer = build_optimizer(network, optim(layer_decay=0.5, param_groups=rules))
    found = {name: (scale, decay) for names, scale, decay in described(optimizer, network.model) for name in names}
    assert found.keys() == dict(network.model.named_parameters()).keys()
    assert found["head.weight"] == (10.0, 0.1)
    assert found["head.bias"] == (10.0, 0.0)
    assert found["blocks.2.mlp.fc1.bias"] == (0.5, 0.3)
    assert found["blocks.2.mlp.fc1.weight"] == (0.5, 0.1)
    build_scheduler(optimizer, optim(sched="constant"), total=10, per_epoch=5).step_update(0)
    assert largest_rate(optimizer) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"param_groups": ({"match": "tail.*", "lr_scale": 2.0},)}, "no parameter that is trained .* matches 'tail"),
        ({"opt": "sgd", "opt_betas": (0.9, 0.99)}, "optim.opt sgd has no betas"),
        ({"opt": "sgd", "opt_eps": 1e-6}, "optim.opt sgd has no eps"),
        ({"opt_kwargs": {"rho": 1}}, "cannot be made with {'rho': 1}"),
    ],
)
def test_what_an_optimiser_would_ignore_is_refused(flags: dict[str, Any], message: str):
    with pytest.raises(ModelError, match=message):
        build_optimizer(vit(), optim(**flags))


def test_arguments_of_an_optimiser_reach_it():
    flags = {"opt_betas": (0.8, 0.95), "opt_eps": 1e-6, "opt_kwargs": {"amsgrad": True}}
    group = build_optimizer(vit(), optim(**flags)).param_groups[0]
    assert (group["betas"], group["eps"], group["amsgrad"]) == ((0.8, 0.95), 1e-6, True)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"sched": "plateau"}, "plateau lowers the learning rate by the results of evaluations"),
        ({"clip_mode": "agc"}, "clips nothing without clip_grad"),
        ({"layer_decay": 0.5, "sched": "none"}, "use sched=constant"),
        ({"param_groups": ({"match": "*", "lr_scale": 2.0},), "sched": "none"}, "use sched=constant"),
        ({"layer_decay_min_scale": 0.1}, "need layer_decay"),
        ({"lr_cycle_limit": 2, "sched": "step"}, "has no cycles"),
        ({"lr_cycle_mul": 2.0}, "no effect on one cycle"),
        ({"lr_k_decay": 2.0, "sched": "tanh"}, "no effect on sched tanh"),
        ({"model_ema_warmup": True}, "set model_ema=true"),
    ],
)
def test_settings_without_effect_are_refused(flags: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        optim(**flags)


def plain_updates(network: Network, config: OptimConfig, flags: dict[str, Any], updates: int) -> None:
    """Train as timm's script does: its optimiser, its constant schedule, its clipping."""
    kwargs = {key: flags[key] for key in ("layer_decay", "layer_decay_min_scale") if key in flags}
    optimizer = create_optimizer_v2(
        network.model, opt=config.opt, lr=config.lr, weight_decay=config.weight_decay, **kwargs
    )
    schedule, _ = create_scheduler_v2(
        optimizer, sched="constant", step_on_epochs=False, warmup_epochs=0, updates_per_epoch=1
    )
    given = batch()
    images, labels = torch.tensor(given.images).float() / 255, torch.tensor(given.labels)
    for number in range(updates):
        schedule.step_update(number)
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        if config.clip_grad is not None:
            parameters = model_parameters(network.model, exclude_head=config.clip_mode == "agc")
            dispatch_clip_grad(parameters, config.clip_grad, mode=config.clip_mode)
        optimizer.step()


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize(
    "flags",
    [
        {"layer_decay": 0.5, "layer_decay_min_scale": 0.2},
        {"clip_grad": 0.05, "weight_decay_exclude": "model"},
        {"clip_grad": 0.002, "clip_mode": "value", "weight_decay_exclude": "model"},
        {"clip_grad": 0.01, "clip_mode": "agc", "weight_decay_exclude": "model"},
        {"layer_decay": 0.75, "clip_grad": 0.05},
    ],
)
def test_updates_equal_those_of_timms_own_parts(flags: dict[str, Any], accumulate: int):
    config = optim(**{"opt": "sgd", "lr": 0.5, **flags, "sched": "constant"})
    network, other, start = vit(), vit(), vit()
    made = updater(nets()[0], network, augmentor=None, objective=CrossEntropyObjective())
    made.learner.optimizer = build_optimizer(network, config)
    made.clipping, made.accumulate = Clipping.of(config), accumulate
    schedule = build_scheduler(made.learner.optimizer, config, total=10, per_epoch=5)
    for number in range(2):
        schedule.step_update(number)
        made.update(made.prepare(batch(), second_view=False), Phase.STUDENT, step=number, epoch=0.0)
    plain_updates(other, config, flags, updates=2)
    for (name, one), two, before in zip(
        network.named_parameters(), other.parameters(), start.parameters(), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6, msg=name)
        assert not torch.equal(one, before), name


@pytest.mark.parametrize("mode", ["norm", "value", "agc"])
def test_each_clip_mode_clips_and_agc_leaves_the_head_alone(mode: str):
    network = vit()
    F.cross_entropy(network(torch.rand(4, 1, 28, 28)), torch.arange(4)).backward()
    before = {name: parameter.grad.clone() for name, parameter in network.model.named_parameters()}
    Clipping(1e-3, mode)(network)
    after = {name: parameter.grad for name, parameter in network.model.named_parameters()}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "blocks.0.mlp.fc1.weight" in changed
    assert ("head.weight" in changed) == (mode != "agc")
    if mode == "norm":
        assert torch.stack([grad.norm() for grad in after.values()]).norm().item() == pytest.approx(1e-3, rel=1e-4)


SCHEDULES = [
    {"sched": "cosine"},
    {"sched": "cosine", "lr_cycle_limit": 3},
    {"sched": "cosine", "lr_cycle_limit": 2, "lr_cycle_mul": 2.0, "lr_cycle_decay": 0.3, "min_lr": 1e-4},
    {"sched": "cosine", "warmup_epochs": 1.0, "warmup_prefix": True, "lr_k_decay": 1.5},
    {"sched": "tanh", "warmup_epochs": 1.0},
    {"sched": "poly", "decay_rate": 2.0, "lr_cycle_limit": 2},
    {"sched": "step", "decay_epochs": 1.0},
    {"sched": "multistep", "decay_milestones": (1.0, 3.0), "warmup_epochs": 0.4},
    {"sched": "constant", "warmup_epochs": 1.0},
]


def rates(config: OptimConfig, first: int, total: int = 20, state: dict[str, Any] | None = None) -> list[list[float]]:
    """The learning rates of each group from an update on, as the loop sets them; from a checkpoint's `state`."""
    optimizer = build_optimizer(vit(), config)
    if state is not None:
        optimizer.load_state_dict(state)
    schedule = build_scheduler(optimizer, config, total=total, per_epoch=5)
    found = []
    for update in range(first, total):
        schedule.step_update(update)
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
    return found


@pytest.mark.parametrize("flags", SCHEDULES)
def test_a_schedule_goes_on_at_a_resume_as_if_nothing_had_been(flags: dict[str, Any]):
    config = optim(layer_decay=0.6, **flags)
    straight = rates(config, 0)
    optimizer = build_optimizer(vit(), config)
    schedule = build_scheduler(optimizer, config, total=20, per_epoch=5)
    for update in range(8):
        schedule.step_update(update)
    assert rates(config, 7, state=optimizer.state_dict()) == straight[7:]
    assert len({max(rate) for rate in straight}) > 1


def test_cycles_fill_the_training_and_start_at_lower_peaks():
    config = optim(sched="cosine", lr_cycle_limit=2, lr_cycle_mul=3.0, lr_cycle_decay=0.25, min_lr=1e-3)
    assert first_cycle(config, 20) == 5
    found = [max(rate) for rate in rates(config, 0)]
    assert found[0] == pytest.approx(1e-2)
    assert found[5] == pytest.approx(0.25 * 1e-2)
    assert found[1:5] == sorted(found[1:5], reverse=True)
    assert found[6:] == sorted(found[6:], reverse=True)
    assert found[19] < 1.1e-3


def test_one_cycle_is_timms_cosine():
    ours = [max(rate) for rate in rates(optim(warmup_epochs=1.0), 0)]
    optimizer = create_optimizer_v2(vit(), opt="adamw", lr=1e-2)
    theirs, _ = create_scheduler_v2(
        optimizer, "cosine", 20, warmup_epochs=5, warmup_lr=1e-5, step_on_epochs=False, updates_per_epoch=1
    )
    for update, rate in enumerate(ours):
        theirs.step_update(update)
        assert rate == optimizer.param_groups[0]["lr"]


def test_the_moving_average_warms_up_as_timms():
    config = optim(model_ema=True, model_ema_decay=0.99, model_ema_warmup=True, model_ema_warmup_power=0.75)
    ours = build_average(vit(), config)
    theirs = ModelEmaV3(vit(), decay=0.99, use_warmup=True, warmup_power=0.75)
    assert [ours.get_decay(step) for step in range(9)] == [theirs.get_decay(step) for step in range(9)]
    assert 0 < ours.get_decay(5) < 0.9 < ours.get_decay(10_000) == 0.99


def test_a_resumed_run_keeps_its_groups_and_ends_with_the_same_bits(tmp_path: Path):
    model = (
        "student.model=vit_tiny_patch16_224",
        "student.model_kwargs={patch_size: 8, embed_dim: 8, depth: 2, num_heads: 1}",
    )
    recipe = ("optim.opt=adamw", "optim.layer_decay=0.5", "optim.clip_grad=0.1", "optim.clip_mode=agc")
    more = ("optim.accumulate=3", "optim.model_ema=true", "optim.model_ema_warmup=true")
    length = ("optim.sched=cosine", "optim.lr_cycle_limit=2", "optim.steps=8")
    config = tiny_config(*model, *recipe, *more, *length, "checkpoints.every=0.1", "checkpoints.keep=9")
    run_here(config, tmp_path / "straight")
    run_here(config, tmp_path / "resumed")
    folder = tmp_path / "resumed"
    for path in CheckpointStore(folder / "checkpoints").list()[1:]:
        path.rename(folder / f"later-{path.name}")
    for name in ("outcome.json", "evaluation.json"):
        (folder / name).unlink(missing_ok=True)
    run_here(config, folder)
    assert_equal_bits(student_weights(tmp_path / "straight"), student_weights(folder))
