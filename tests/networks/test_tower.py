"""Towers with heads: the same features, the same weights bit for bit, and folders that timm loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from hard_ray.config.networks import StudentConfig, TeacherConfig
from hard_ray.errors import ModelError
from hard_ray.export.timm_folder import EvalView, write_timm_folder
from hard_ray.networks.network import ImageSpec, Network, build_student, build_teacher, input_contract
from hard_ray.networks.precision import Precision
from hard_ray.networks.tower import CosineHead
from hard_ray.networks.towers import Head, Tower, build_tower, names_of

SMALL_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
SMALL_SWIN = {"img_size": 32, "window_size": 4, "embed_dim": 12, "depths": (1, 1), "num_heads": (1, 2)}
MODELS = {
    "vit": ("vit_tiny_patch16_224", {**SMALL_VIT, "num_classes": 0}),
    "dynamic": ("vit_tiny_patch16_224", {**SMALL_VIT, "dynamic_img_size": True}),
    "deit": ("deit_tiny_distilled_patch16_224", SMALL_VIT),
    "swin": ("swin_tiny_patch4_window7_224", SMALL_SWIN),
    "cnn": ("hardray_cnn", {"widths": (4, 8), "in_chans": 3}),
    "resnet8": ("cifar_resnet8", {}),
    "mobilenet": ("mobilenetv3_small_050", {}),
}
IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SPEC = ImageSpec(32, 3, ())


def saved(name: str, folder: Path) -> torch.nn.Module:
    """One of timm's models with random weights, in evaluation mode and as a folder in timm's layout."""
    torch.manual_seed(0)
    architecture, arguments = MODELS[name]
    model = timm.create_model(architecture, **arguments).eval()
    timm.models.save_for_hf(model, str(folder), safe_serialization=True)
    return model


def heads(width: int) -> dict[str, Head]:
    random = torch.Generator().manual_seed(1)
    weight, bias = torch.randn(5, width, generator=random), torch.randn(5, generator=random)
    return {"linear": Head(weight, bias), "cosine": Head(weight, bias, 20.0)}


def written(tower: Tower, head: Head, folder: Path) -> Network:
    network = tower.with_head(head)
    names = names_of(len(head.bias), "prototype")
    write_timm_folder(network, folder, images=SPEC, names=names, view=EvalView(), card="")
    return network


@pytest.mark.parametrize("name", MODELS)
def test_features_are_those_before_the_classifier(name: str, tmp_path: Path):
    model = saved(name, tmp_path / "tower")
    tower = build_tower(TeacherConfig(model=f"local-dir:{tmp_path / 'tower'}"), SPEC)
    network = tower.network
    with torch.inference_mode():
        seen = (IMAGES - network.mean) / network.std
        wanted = model.forward_head(model.forward_features(seen), pre_logits=True)
        assert torch.equal(network(IMAGES), wanted)
    assert wanted.shape == (3, tower.width)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("name", MODELS)
def test_a_folder_gives_back_tower_and_head_bit_for_bit(name: str, kind: str, tmp_path: Path):
    saved(name, tmp_path / "tower")
    tower = build_tower(TeacherConfig(model=f"local-dir:{tmp_path / 'tower'}"), SPEC)
    network = written(tower, heads(tower.width)[kind], tmp_path / "teacher")
    names = names_of(5, "prototype")
    back = build_teacher(TeacherConfig(model=f"local-dir:{tmp_path / 'teacher'}"), ImageSpec(32, 3, names))
    assert back.identity() == network.identity()
    with torch.inference_mode():
        assert torch.equal(back(IMAGES), network(IMAGES))
    given = load_file(tmp_path / "tower/model.safetensors")
    kept = load_file(tmp_path / "teacher/model.safetensors")
    for key in [key for key in kept if key.startswith("tower.")]:
        assert torch.equal(kept[key], given[key.removeprefix("tower.")]), key


def test_a_cosine_head_is_the_formula_in_float64():
    random = np.random.default_rng(0)
    features, weight, bias = random.normal(size=(4, 7)), random.normal(size=(3, 7)), random.normal(size=3)
    head = CosineHead(7, 3).double()
    head.load_state_dict(
        {"weight": torch.tensor(weight), "bias": torch.tensor(bias), "scale": torch.tensor(12.5, dtype=torch.float64)}
    )
    wanted = [
        [12.5 * (f @ w) / (np.sqrt(f @ f) * np.sqrt(w @ w)) + b for w, b in zip(weight, bias, strict=True)]
        for f in features
    ]
    assert np.allclose(head(torch.tensor(features)).detach().numpy(), wanted, atol=1e-12)


def test_a_cosine_head_computes_in_float32_within_mixed_precision():
    head = CosineHead(8, 4)
    features = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))
    with Precision(torch.device("cpu"), torch.bfloat16).autocast():
        assert torch.equal(head(features), head.float()(features))
        assert head(features.bfloat16()).dtype == torch.float32


def test_a_tower_can_be_taken_from_a_teacher_that_has_a_head(tmp_path: Path):
    saved("vit", tmp_path / "tower")
    tower = build_tower(TeacherConfig(model=f"local-dir:{tmp_path / 'tower'}"), SPEC)
    written(tower, heads(tower.width)["cosine"], tmp_path / "teacher")
    again = build_tower(TeacherConfig(model=f"local-dir:{tmp_path / 'teacher'}"), SPEC)
    assert again.recipe == tower.recipe
    with torch.inference_mode():
        assert torch.equal(again.network(IMAGES), tower.network(IMAGES))


def test_weights_in_a_file_make_the_same_tower_with_and_without_their_head(tmp_path: Path):
    model = saved("resnet8", tmp_path / "tower")
    wanted = build_tower(TeacherConfig(model=f"local-dir:{tmp_path / 'tower'}"), SPEC).network(IMAGES)
    state = model.state_dict()
    without = {key: value for key, value in state.items() if not key.startswith("linear.")}
    for name, weights in (("whole", state), ("headless", without)):
        save_file(weights, tmp_path / f"{name}.safetensors")
        found = build_tower(TeacherConfig(model="cifar_resnet8", checkpoint=tmp_path / f"{name}.safetensors"), SPEC)
        assert torch.equal(found.network(IMAGES), wanted)


def test_a_head_for_features_of_another_size_is_refused(tmp_path: Path):
    saved("resnet8", tmp_path / "tower")
    tower = build_tower(TeacherConfig(model=f"local-dir:{tmp_path / 'tower'}"), SPEC)
    with pytest.raises(ModelError, match="has 64 features, the head takes 63; want the tower that the head was fitted"):
        tower.with_head(heads(63)["linear"])


def test_a_tower_that_cannot_be_loaded_is_refused(tmp_path: Path):
    for model, words in (
        ("vit_tinny_patch16_224", "timm knows no such model"),
        (f"local-dir:{tmp_path}", "config.json"),
    ):
        with pytest.raises(ModelError, match=words):
            build_tower(TeacherConfig(model=model, pretrained=":" not in model), SPEC)


def test_weights_with_nan_are_refused(tmp_path: Path):
    saved("resnet8", tmp_path / "tower")
    path = tmp_path / "tower/model.safetensors"
    weights = load_file(path)
    weights["conv1.weight"][:] = float("nan")
    save_file(weights, path)
    with pytest.raises(ModelError, match="features that are not finite"):
        build_tower(TeacherConfig(model=f"local-dir:{tmp_path / 'tower'}"), SPEC)


def test_another_input_size_resamples_the_weights_of_positions_and_says_what_it_costs(tmp_path: Path):
    model = saved("vit", tmp_path / "tower")
    config = TeacherConfig(model=f"local-dir:{tmp_path / 'tower'}", img_size=64)
    tower = build_tower(config, SPEC)
    assert tower.network.contract.size == (64, 64)
    assert "resampled from images of 32 x 32; an image has 4 times as many patches" in tower.network.notes[0]
    model.set_input_size(img_size=64)
    with torch.inference_mode():
        seen = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
        wanted = model((seen - tower.network.mean) / tower.network.std)
        assert torch.equal(tower.network(seen), wanted)
    network = written(tower, heads(tower.width)["linear"], tmp_path / "teacher")
    names = names_of(5, "prototype")
    back = build_teacher(TeacherConfig(model=f"local-dir:{tmp_path / 'teacher'}"), ImageSpec(32, 3, names))
    assert back.contract.size == (64, 64)
    assert back.identity() == network.identity()
    small = build_teacher(
        TeacherConfig(model=f"local-dir:{tmp_path / 'teacher'}", img_size=32), ImageSpec(32, 3, names)
    )
    assert small.contract.size == (32, 32)
    assert small(IMAGES).shape == (3, 5)


def test_a_network_for_any_size_keeps_the_size_that_its_tower_was_given(tmp_path: Path):
    saved("resnet8", tmp_path / "tower")
    tower = build_tower(TeacherConfig(model=f"local-dir:{tmp_path / 'tower'}", img_size=16), SPEC)
    network = written(tower, heads(tower.width)["linear"], tmp_path / "teacher")
    names = names_of(5, "prototype")
    back = build_teacher(TeacherConfig(model=f"local-dir:{tmp_path / 'teacher'}"), ImageSpec(32, 3, names))
    assert back.contract.size == (16, 16)
    with torch.inference_mode():
        assert torch.equal(back(IMAGES), network(IMAGES))


def test_a_size_that_an_architecture_does_not_take_is_refused(tmp_path: Path):
    torch.manual_seed(0)
    model = timm.create_model("hardray_mlp", img_size=16)
    timm.models.save_for_hf(model, str(tmp_path / "mlp"), safe_serialization=True)
    spec = ImageSpec(16, 1, tuple("0123456789"))
    with pytest.raises(ModelError, match="teacher.img_size 24: .* takes images of 16 x 16 pixels and no others"):
        build_teacher(TeacherConfig(model=f"local-dir:{tmp_path / 'mlp'}", img_size=24), spec)


def test_a_new_head_of_a_tower_is_linear_and_learns(tmp_path: Path):
    saved("resnet8", tmp_path / "tower")
    tower = build_tower(TeacherConfig(model=f"local-dir:{tmp_path / 'tower'}"), SPEC)
    written(tower, heads(tower.width)["cosine"], tmp_path / "teacher")
    config = StudentConfig(model=f"local-dir:{tmp_path / 'teacher'}", new_head=True)
    student = build_student(config, ImageSpec(32, 3, tuple("abcdefg")))
    assert student.has_new_head
    assert student(IMAGES).shape == (3, 7)
    assert input_contract(student.model, config, SPEC).mean == tower.network.contract.mean
