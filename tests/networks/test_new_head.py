"""Weights that were made for other classes, in a network that is fine-tuned."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import hard_ray.networks  # noqa: F401
from hard_ray.config.networks import StudentConfig, TeacherConfig
from hard_ray.errors import ModelError
from hard_ray.networks.network import ImageSpec, Network, build_student, build_teacher
from tests.networks.test_network import saved_by_timm

MODEL = "cifar_resnet8"
TEN = ImageSpec(32, 3, tuple("0123456789"))
SEVEN = list("abcdefg")


def fine_tuned(**config: object) -> Network:
    torch.manual_seed(5)
    return build_student(StudentConfig(new_head=True, **config), TEN)


def assert_rest_is_kept(model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    state = model.state_dict()
    assert state.keys() == weights.keys()
    for key, value in weights.items():
        if not key.startswith("linear."):
            assert torch.equal(state[key], value), key


@pytest.mark.parametrize("way", ["checkpoint", "model", "file"])
def test_a_head_for_seven_classes_becomes_one_for_ten_and_the_rest_is_kept(tmp_path: Path, way: str):
    folder = saved_by_timm(tmp_path / "t", SEVEN)
    weights = timm.create_model(f"local-dir:{folder}", pretrained=True).state_dict()
    save_file(weights, tmp_path / "t.safetensors")
    config = {
        "checkpoint": {"model": MODEL, "checkpoint": folder},
        "model": {"model": f"local-dir:{folder}"},
        "file": {"model": MODEL, "checkpoint": tmp_path / "t.safetensors"},
    }[way]
    network = fine_tuned(**config)
    assert network.has_new_head
    assert network.model.linear.weight.shape[0] == network.model.num_classes == 10
    assert_rest_is_kept(network.model, weights)
    assert torch.equal(network.model.linear.weight, fine_tuned(**config).model.linear.weight)
    with pytest.raises(ModelError, match=r"has 7 outputs|\(7, 64\) in the file"):
        build_student(StudentConfig(**config), TEN)
    with pytest.raises(ModelError, match=r"has 7 outputs|\(7, 64\) in the file"):
        build_teacher(TeacherConfig(**config), TEN)


@pytest.mark.parametrize("way", ["checkpoint", "file"])
def test_a_head_for_these_classes_is_kept(tmp_path: Path, way: str):
    folder = saved_by_timm(tmp_path / "t", list(TEN.classes))
    weights = timm.create_model(f"local-dir:{folder}", pretrained=True).state_dict()
    save_file(weights, tmp_path / "t.safetensors")
    network = fine_tuned(model=MODEL, checkpoint=folder if way == "checkpoint" else tmp_path / "t.safetensors")
    assert not network.has_new_head
    assert torch.equal(network.model.linear.weight, weights["linear.weight"])
    assert_rest_is_kept(network.model, weights)


def test_a_head_for_as_many_classes_in_another_order_is_replaced(tmp_path: Path):
    folder = saved_by_timm(tmp_path / "t", list(reversed(TEN.classes)))
    weights = timm.create_model(f"local-dir:{folder}", pretrained=True).state_dict()
    network = fine_tuned(model=f"local-dir:{folder}")
    assert network.has_new_head
    assert not torch.equal(network.model.linear.weight, weights["linear.weight"])
    assert_rest_is_kept(network.model, weights)


def test_only_the_head_may_have_another_shape(tmp_path: Path):
    weights = timm.create_model(MODEL, num_classes=7).state_dict()
    weights["conv1.weight"] = weights["conv1.weight"][:4].clone()
    save_file(weights, tmp_path / "t.safetensors")
    with pytest.raises(ModelError, match=r"1 key of another shape: conv1.weight \(\(4, 3, 3, 3\) in the file"):
        fine_tuned(model=MODEL, checkpoint=tmp_path / "t.safetensors")
