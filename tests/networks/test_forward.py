"""Networks that take some input sizes only, and folders that timm cannot read, before a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import hard_ray.networks  # noqa: F401
from hard_ray.config.networks import StudentConfig, TeacherConfig
from hard_ray.errors import ModelError
from hard_ray.networks.forward import check_forward
from hard_ray.networks.network import ImageSpec, Network, build_student, build_teacher
from tests.networks.test_network import saved_by_timm

TWO = ("ant", "bee")
MODEL = "cifar_resnet8"


def checked(model: str, size: int, *, channels: int = 3, **options: object) -> Network:
    config, spec = StudentConfig(model=model, **options), ImageSpec(size, channels, TWO)
    network = build_student(config, spec)
    check_forward(network, config, spec, role="student")
    return network


@pytest.mark.parametrize(
    ("model", "size", "words"),
    [
        ("vit_tiny_patch16_224", 8, "cannot take images of 3 x 8 x 8"),
        ("maxvit_tiny_rw_224", 100, r"must be divisible by window"),
        ("levit_128s", 100, "cannot take images of 3 x 100 x 100"),
        ("xcit_nano_12_p16_224", 225, "cannot be made .*should divide image dimensions"),
        ("convnext_atto", 16, "cannot take images of 3 x 16 x 16"),
    ],
)
def test_a_size_that_a_network_cannot_take_is_one_sentence_with_the_key(model: str, size: int, words: str):
    with pytest.raises(ModelError, match=words) as caught:
        checked(model, size)
    text = str(caught.value)
    assert "set student.img_size=" in text and "want " in text
    assert "\n" not in text


def test_the_remedy_helps():
    assert checked("convnext_atto", 16, img_size=64).contract.size == (64, 64)
    assert checked("vit_tiny_patch16_224", 225).contract.size == (225, 225)


def test_the_mode_and_the_weights_stay_as_they_are():
    config, spec = StudentConfig(model=MODEL), ImageSpec(32, 3, TWO)
    network = build_student(config, spec)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    check_forward(network, config, spec, role="student")
    assert network.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_answers_that_are_not_finite_and_models_that_classify_nothing_are_refused():
    config, spec = StudentConfig(model=MODEL), ImageSpec(32, 3, TWO)
    network = build_student(config, spec)
    with torch.no_grad():
        network.model.linear.bias[0] = torch.nan
    with pytest.raises(ModelError, match=r"not finite; want finite logits; give other weights as student.checkpoint"):
        check_forward(network, config, spec, role="student")
    network.model.linear = torch.nn.Identity()
    with pytest.raises(ModelError, match=r"shape \(1, 64\); want \(1, 2\), one for each class"):
        check_forward(network, config, spec, role="student")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3141\n"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda folder: (folder / "model.safetensors").write_bytes(LFS),
            "model.safetensors: it is a pointer of Git LFS",
        ),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "model.safetensors: it is empty"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
        (lambda folder: (folder / "config.json").unlink(), "without config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: cannot be read as JSON"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "vit"}'), r"is of another library \(vit\)"),
        (lambda folder: (folder / "config.json").write_text("[]"), "names no `architecture`"),
    ],
    ids=["lfs", "empty", "no weights", "no config", "broken config", "transformers", "list"],
)
def test_a_folder_that_timm_cannot_read_says_why(spoil, words: str, tmp_path: Path):
    folder = saved_by_timm(tmp_path / "t", list(TWO))
    spoil(folder)
    for config in (
        TeacherConfig(model=MODEL, checkpoint=folder),
        TeacherConfig(model=f"local-dir:{folder}"),
    ):
        with pytest.raises(ModelError, match=words) as caught:
            build_teacher(config, ImageSpec(32, 3, TWO))
        assert "want a folder in timm's layout" in str(caught.value)


def test_a_path_without_a_folder_is_a_message(tmp_path: Path):
    with pytest.raises(ModelError, match=r"teacher.model .*none: there is no such folder"):
        build_teacher(TeacherConfig(model=f"local-dir:{tmp_path / 'none'}"), ImageSpec(32, 3, TWO))


def test_a_configuration_with_a_byte_order_mark_which_timm_does_not_read_says_so(tmp_path: Path):
    folder = saved_by_timm(tmp_path / "t", list(TWO))
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text())), encoding="utf-8-sig")
    with pytest.raises(
        ModelError,
        match="begins with a byte-order mark, which timm does not read; .* save config.json as UTF-8 without",
    ):
        build_teacher(TeacherConfig(model=MODEL, checkpoint=folder), ImageSpec(32, 3, TWO))
