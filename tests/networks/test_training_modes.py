"""Checkpointed gradients and BatchNorm at rest, against plain training and timm's frozen layers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import freeze_batch_norm_2d

from hard_ray.config.controller import Phase
from hard_ray.config.networks import StudentConfig
from hard_ray.config.objective import CrossEntropyObjective, HardObjective
from hard_ray.config.optim import OptimConfig
from hard_ray.distillation.optimisers import build_optimizer
from hard_ray.distillation.step import Updater
from hard_ray.errors import ModelError
from hard_ray.networks.network import ImageSpec, Network, build_student
from hard_ray.networks.precision import resting
from hard_ray.networks.training_modes import freeze_tower
from tests.distillation.test_step import SPEC, affine, batch, nets, updater

VIT = {"model": "vit_tiny_patch16_224", "model_kwargs": {"patch_size": 7, "embed_dim": 16, "depth": 2, "num_heads": 2}}
RESNET = {"model": "test_resnet"}


def student(**values: Any) -> Network:
    torch.manual_seed(0)
    return build_student(StudentConfig(**values), SPEC)


def trained(network: Network, *, phase: Phase = Phase.STUDENT, **how: Any) -> Updater:
    """Two updates of a student in training mode."""
    made = updater(nets()[0], network.train(), **{"augmentor": None, "objective": CrossEntropyObjective(), **how})
    for step in range(2):
        made.update(made.prepare(batch(), second_view=False), phase, step=step, epoch=0.0)
    return made


def kept_for_backward(network: Network) -> int:
    """Numbers that a forward pass keeps for the gradient."""
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda x: x):
        copy.deepcopy(network).train()(torch.rand(16, 1, 28, 28))
    return sum(kept)


@pytest.mark.parametrize("model", [VIT, RESNET], ids=["vit", "batch norm"])
def test_checkpointed_gradients_make_the_same_network_with_the_same_averages(model: dict[str, Any]):
    plain, less = student(**model), student(**model, grad_checkpointing=True)
    assert kept_for_backward(less) < 0.6 * kept_for_backward(plain)
    trained(plain)
    trained(less)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(less.state_dict()[key], value, rtol=1e-6, atol=1e-7, msg=key)


def test_an_augmentor_learns_through_checkpointed_gradients_as_without():
    learned = []
    for checkpointing in (False, True):
        network = student(**RESNET, grad_checkpointing=checkpointing)
        made = trained(network, phase=Phase.AUGMENTOR, augmentor=affine(), objective=HardObjective())
        learned.append(torch.cat([parameter.detach().flatten() for parameter in made.learner.augmentor.parameters()]))
    torch.testing.assert_close(*learned, rtol=1e-5, atol=1e-6)


def test_frozen_batch_norm_trains_as_timms_frozen_layers_do():
    network, other = student(**RESNET, freeze_bn=True), student(**RESNET)
    for each in (network, other):
        with torch.no_grad():
            for name, buffer in each.named_buffers():
                if name.endswith(("running_mean", "running_var")):
                    buffer.add_(0.1)
    freeze_batch_norm_2d(other.model)
    before = copy.deepcopy(network.state_dict())
    trained(network)
    trained(other)
    for name, value in other.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert not {name for name in changed if "running" in name or "num_batches" in name or ".bn" in name}


def test_frozen_batch_norm_outlives_every_change_of_mode():
    network = build_student(StudentConfig(model="cifar_resnet8", freeze_bn=True), ImageSpec(32, 3, ("a", "b")))
    images = torch.rand(4, 3, 32, 32)
    before = copy.deepcopy(network.state_dict())
    for _ in range(2):
        network.train()
        assert network.training
        assert not network.model.bn1.training
        with resting(network):
            network(images)
        F.cross_entropy(network(images), torch.tensor([0, 1, 0, 1])).backward()
    assert copy.deepcopy(network).train().model.bn1.training is False
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.model.bn1.weight.grad is None
    assert network.model.conv1.weight.grad is not None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({**VIT, "freeze_bn": True}, "student.freeze_bn is true, but VisionTransformer has no BatchNorm"),
        ({"model": "hardray_mlp", "grad_checkpointing": True}, "Mlp cannot compute its activations again"),
    ],
)
def test_a_network_without_it_is_refused(values: dict[str, Any], message: str):
    with pytest.raises(ModelError, match=message):
        student(**values)


def test_a_frozen_tower_keeps_its_weights_and_rests_while_its_head_learns():
    config = StudentConfig(model="hardray_cnn", model_kwargs={"widths": [4, 8]}, freeze="tower")
    torch.manual_seed(0)
    network = build_student(config, SPEC)
    head = network.model.get_classifier()
    learned = [name for name, weight in network.named_parameters() if weight.requires_grad]
    assert learned == ["model.head.weight", "model.head.bias"]
    before = copy.deepcopy(network.state_dict())
    optimizer = build_optimizer(network, OptimConfig(steps=1, lr=0.1, weight_decay=0.1))
    images, labels = torch.rand(8, SPEC.in_chans, SPEC.img_size, SPEC.img_size), torch.arange(8) % len(SPEC.classes)
    for _ in range(3):
        network.train()
        assert head.training
        assert not any(module.training for module in network.model.modules() if module not in (head, network.model))
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    changed = [name for name, value in network.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["model.head.weight", "model.head.bias"]


def test_a_network_without_a_class_head_has_no_tower_to_freeze():
    with pytest.raises(ModelError, match=r"student\.freeze is tower, but .* has no single layer of classes"):
        freeze_tower(torch.nn.Linear(2, 2), role="student")
