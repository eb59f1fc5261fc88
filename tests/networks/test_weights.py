"""Weights that fit a network under other names, and the reasons why others do not."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

import hard_ray.networks  # noqa: F401
from hard_ray.config.networks import StudentConfig, TeacherConfig
from hard_ray.errors import ModelError
from hard_ray.networks.network import ImageSpec, build_student, build_teacher
from hard_ray.networks.weights import load_weights

MODEL = "cifar_resnet8"
THREE = ImageSpec(32, 3, ("ant", "bee", "cat"))


def weights_of(model: str = MODEL, **options: Any) -> dict[str, Tensor]:
    torch.manual_seed(3)
    return {k: v.clone() for k, v in timm.create_model(model, **{"num_classes": 3, **options}).state_dict().items()}


def prefixed(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in weights.items()}


def saved(content: Any, folder: Path) -> Path:
    path = folder / "w.pth"
    torch.save(content, path)
    return path


def refusal(content: Any, folder: Path, *, role: str = "teacher", model: str = MODEL, spec: ImageSpec = THREE) -> str:
    path = saved(content, folder)
    with pytest.raises(ModelError) as caught:
        if role == "teacher":
            build_teacher(TeacherConfig(model=model, checkpoint=path), spec)
        else:
            build_student(StudentConfig(model=model, checkpoint=path), spec)
    return str(caught.value)


@pytest.mark.parametrize("prefix", ["net.", "student.", "backbone.", "model.net.", "_orig_mod.model.encoder."])
def test_a_prefix_under_which_every_key_is_there_is_taken_off_with_a_line(prefix: str, tmp_path: Path):
    weights = weights_of()
    model = timm.create_model(MODEL, num_classes=3)
    others = {"criterion.weight": torch.ones(3), "val_acc.correct": torch.ones(())}
    loaded = load_weights(model, saved({**prefixed(weights, prefix), **others}, tmp_path), role="teacher")
    assert all(torch.equal(model.state_dict()[key], value) for key, value in weights.items())
    assert loaded.notes == (
        f"the prefix {prefix.removeprefix('_orig_mod.')!r} was taken off",
        "keys without it were left out: 2, such as criterion.weight, val_acc.correct",
    )


def test_of_two_networks_in_a_file_the_one_that_fits_is_taken(tmp_path: Path):
    weights = weights_of()
    content = {**prefixed(weights_of("cifar_resnet20"), "teacher."), **prefixed(weights, "student.")}
    model = timm.create_model(MODEL, num_classes=3)
    assert "the prefix 'student.' was taken off" in load_weights(model, saved(content, tmp_path), role="student").notes
    assert torch.equal(model.conv1.weight, weights["conv1.weight"])


def test_two_networks_that_both_fit_are_a_choice_for_the_user(tmp_path: Path):
    content = {**prefixed(weights_of(), "student."), **prefixed(weights_of(), "ema.")}
    text = refusal(content, tmp_path)
    assert "2 networks in it fit: their keys begin with 'student.', 'ema.'" in text
    assert "import-teacher" in text and "--rename '^student.=' --rename '^ema..*='" in text


def test_numbers_of_a_profiler_are_left_out_with_a_line(tmp_path: Path):
    counted = {"total_ops": torch.zeros(1), "layer1.total_ops": torch.zeros(1), "layer1.0.total_params": torch.zeros(1)}
    model = timm.create_model(MODEL, num_classes=3)
    notes = load_weights(model, saved({**weights_of(), **counted}, tmp_path), role="teacher").notes
    assert notes == ("numbers of a profiler were left out: 3, such as total_ops, layer1.total_ops, ...",)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_the_models(dtype: torch.dtype, tmp_path: Path):
    weights = weights_of()
    halved = {key: value.to(dtype) if value.is_floating_point() else value for key, value in weights.items()}
    model = timm.create_model(MODEL, num_classes=3)
    load_weights(model, saved(halved, tmp_path), role="teacher")
    assert model.conv1.weight.dtype is torch.float32
    torch.testing.assert_close(model.conv1.weight, weights["conv1.weight"], rtol=1e-2, atol=1e-2)


def test_notes_reach_the_network(tmp_path: Path):
    path = saved({"net": weights_of()}, tmp_path)
    for network in (
        build_teacher(TeacherConfig(model=MODEL, checkpoint=path), THREE),
        build_student(StudentConfig(model=MODEL, checkpoint=path), THREE),
        build_student(StudentConfig(model=MODEL, checkpoint=path, new_head=True), THREE),
    ):
        assert network.notes == ("the weights are the entry 'net' of the file",)


def test_another_number_of_classes_is_said_to_be_the_head(tmp_path: Path):
    text = refusal(weights_of(num_classes=7), tmp_path)
    assert (
        "2 keys of another shape, of the class head: linear.weight ((7, 64) in the file, (3, 64) in the model)" in text
    )
    assert "the head is for 7 classes, and 3 are wanted: `hardray train-teacher` fine-tunes it" in text
    assert "or teacher.class_map names all outputs" in text
    assert "student.new_head=true gives it a new one" in refusal(weights_of(num_classes=7), tmp_path, role="student")


def test_weights_without_a_head_are_said_to_be_so_and_take_a_new_one(tmp_path: Path):
    weights = {key: value for key, value in weights_of().items() if not key.startswith("linear.")}
    text = refusal(weights, tmp_path, role="student")
    assert "2 keys missing: linear.weight, linear.bias" in text
    assert "the file has no class head: student.new_head=true" in text
    config = StudentConfig(model=MODEL, checkpoint=saved(weights, tmp_path), new_head=True)
    network = build_student(config, THREE)
    assert network.has_new_head
    assert torch.equal(network.model.conv1.weight, weights["conv1.weight"])


@pytest.mark.parametrize(
    ("model", "size", "words"),
    [
        ("vit_tiny_patch16_224", 96, "the file is for images of 96 pixels: teacher.img_size=96"),
        ("deit_tiny_distilled_patch16_224", 64, "the file is for images of 64 pixels: teacher.img_size=64"),
        ("swin_tiny_patch4_window7_224", 64, "the file is for another input size: teacher.img_size=SIZE"),
    ],
)
def test_another_input_size_is_said_to_be_the_position_embedding(model: str, size: int, words: str, tmp_path: Path):
    spec = ImageSpec(224, 3, THREE.classes)
    weights = weights_of(model, img_size=size)
    text = refusal(weights, tmp_path, model=model, spec=spec)
    assert "of another shape, of the position embedding: " in text
    assert words in text
    if "images of" in words:
        config = TeacherConfig(model=model, checkpoint=tmp_path / "w.pth", img_size=size)
        assert build_teacher(config, spec).contract.size == (size, size)


@pytest.mark.parametrize("model", [MODEL, "vit_tiny_patch16_224", "convnext_atto"])
def test_other_channels_are_said_to_be_the_first_convolution(model: str, tmp_path: Path):
    options = {"img_size": 32} if model.startswith("vit") else {}
    text = refusal(weights_of(model, in_chans=1, **options), tmp_path, model=model)
    assert "1 key of another shape, of the first convolution: " in text
    assert "the file takes images of 1 channels, the model 3: data.in_chans=1" in text
    text = refusal(weights_of(model, in_chans=5, **options), tmp_path, model=model)
    assert "name weights for 1 or 3 channels" in text


def test_a_perceptron_of_another_size_is_said_to_be_its_first_layer(tmp_path: Path):
    spec = ImageSpec(16, 1, THREE.classes)
    text = refusal(weights_of("hardray_mlp", img_size=28), tmp_path, model="hardray_mlp", spec=spec)
    assert "of the first layer: layers.0.weight ((512, 784) in the file, (512, 256) in the model)" in text
    assert "teacher.img_size=SIZE" in text


def test_several_parts_that_differ_are_all_named(tmp_path: Path):
    weights = weights_of("vit_tiny_patch16_224", img_size=64, num_classes=7)
    text = refusal(weights, tmp_path, model="vit_tiny_patch16_224")
    assert "of the class head: " in text and "of the position embedding: " in text
    assert "the head is for 7 classes" in text and "images of 64 pixels" in text


def test_other_widths_want_another_model(tmp_path: Path):
    weights = weights_of("hardray_cnn", in_chans=3, widths=(4, 8, 16))
    text = refusal(weights, tmp_path, model="hardray_cnn")
    assert "the layers are the same, their widths are not: teacher.model=ANOTHER" in text


@pytest.mark.parametrize(
    "note",
    [
        {"args": argparse.Namespace(model="cifar_resnet20")},
        {"arch": "cifar_resnet20"},
        {"args": {"model": "cifar_resnet20"}},
    ],
)
def test_the_models_name_that_a_script_noted_is_the_remedy(note: dict, tmp_path: Path):
    text = refusal({"state_dict": weights_of("cifar_resnet20"), **note}, tmp_path)
    assert "what to do: the file notes that it is a cifar_resnet20: teacher.model=cifar_resnet20" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: {**w, "aux.weight": torch.zeros(2)}, "`hardray import-teacher` with --rename '^KEY.*=' drops them"),
        (lambda w: {k: v for k, v in w.items() if "layer1" not in k}, "of a smaller model or of a part of one"),
        (lambda _: weights_of("resnet18"), "of another architecture, teacher.model=ANOTHER"),
        (
            lambda w: {k: (v * 9).to(torch.int8) if "conv1" in k else v for k, v in w.items()},
            "before they were quantis",
        ),
        (lambda w: {f"trunk.{k}": v for k, v in w.items() if k != "bn1.bias"}, r"--rename '^trunk\.='"),
    ],
    ids=["more", "less", "other", "quantised", "prefix"],
)
def test_other_misfits_say_their_likely_cause(change, words: str, tmp_path: Path):
    assert words in refusal(change(weights_of()), tmp_path)


def test_a_shared_file_of_safetensors_is_loaded(tmp_path: Path):
    save_file(weights_of(), tmp_path / "w.safetensors")
    config = TeacherConfig(model=MODEL, checkpoint=tmp_path / "w.safetensors")
    assert build_teacher(config, THREE).notes == ()
