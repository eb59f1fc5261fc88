import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from hard_ray.config.data import ImageFolderData
from hard_ray.config.networks import StudentConfig
from hard_ray.data.views import eval_view
from hard_ray.export.timm_folder import EvalView, TrainingFacts, export_network, timm_view, write_timm_folder
from hard_ray.networks.network import ImageSpec, Network, build_student

SMALL = ImageSpec(32, 3, ("ant", "bee"))
FACTS = TrainingFacts("digits", 1297, "hardray_cnn", "hard", "affine", 1000, EvalView())


def exported(folder: Path, spec: ImageSpec, **config: object) -> Network:
    torch.manual_seed(0)
    network = build_student(StudentConfig(**config), spec)
    for _ in range(2):
        network.train()(torch.rand(4, spec.in_chans, spec.img_size, spec.img_size))
    export_network(network, folder, images=spec, facts=FACTS)
    return network.eval()


def test_a_student_in_channels_last_layout_is_exported_with_equal_weights(tmp_path: Path):
    torch.manual_seed(0)
    network = build_student(StudentConfig(model="cifar_resnet8"), SMALL).to(memory_format=torch.channels_last)
    export_network(network, tmp_path / "student", images=SMALL, facts=FACTS)
    loaded = timm.create_model(f"local-dir:{tmp_path / 'student'}", pretrained=True)
    for key, value in network.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    assert network.model.conv1.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("spec", "config"),
    [
        (ImageSpec(28, 1, tuple("0123456789")), {"model": "hardray_mlp"}),
        (ImageSpec(24, 1, tuple("0123456789")), {"model": "hardray_mlp", "model_kwargs": {"widths": [24]}}),
        (ImageSpec(32, 3, ("ant", "bee")), {"model": "cifar_resnet8"}),
        (ImageSpec(64, 3, ("ant", "bee", "cat")), {"model": "resnet18", "mean": [0.1, 0.2, 0.3]}),
        (ImageSpec(32, 3, ("ant", "bee", "cat")), {"model": "vit_tiny_patch16_224"}),
    ],
    ids=lambda value: value.get("model") if isinstance(value, dict) else "",
)
def test_timm_loads_the_exported_student_with_the_same_logits(tmp_path: Path, spec: ImageSpec, config: dict):
    network = exported(tmp_path / "student", spec, **config)
    loaded = timm.create_model(f"local-dir:{tmp_path / 'student'}", pretrained=True).eval()
    images = torch.rand(4, spec.in_chans, spec.img_size, spec.img_size)
    data = timm.data.resolve_model_data_config(loaded)
    mean, std = (torch.tensor(data[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        difference = (loaded((images - mean) / std) - network(images)).abs().max()
    assert difference < 1e-5
    assert loaded.pretrained_cfg["label_names"] == list(spec.classes)
    assert data["input_size"] == (spec.in_chans, spec.img_size, spec.img_size)


def test_an_export_is_a_student_and_a_teacher_again(tmp_path: Path):
    spec = ImageSpec(28, 1, tuple("0123456789"))
    network = exported(tmp_path / "student", spec, model="hardray_mlp")
    again = build_student(StudentConfig(model=f"local-dir:{tmp_path / 'student'}"), spec)
    assert again.identity() == network.identity()


def test_the_model_card_says_how_to_load_it_and_that_works(tmp_path: Path):
    exported(tmp_path / "student", ImageSpec(28, 1, tuple("0123456789")), model="hardray_mlp")
    card = (tmp_path / "student" / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0].replace("PATH", str(tmp_path / "student"))
    assert "import hard_ray.networks" in code
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_native_timm_student_needs_no_import(tmp_path: Path):
    exported(tmp_path / "student", ImageSpec(32, 3, ("ant", "bee")), model="resnet18")
    assert "hard_ray" not in (tmp_path / "student" / "README.md").read_text()


@pytest.mark.parametrize("crop_pct", [1.0, 0.8])
def test_timms_view_of_a_square_picture_is_the_runs(tmp_path: Path, crop_pct: float):
    data = ImageFolderData(path=tmp_path, img_size=32, crop="none", crop_pct=crop_pct, interpolation="bilinear")
    network = build_student(StudentConfig(model="resnet10t"), SMALL)
    view = timm_view(data)
    write_timm_folder(network, tmp_path / "s", images=SMALL, names=None, view=view, card="")
    loaded = timm.create_model(f"local-dir:{tmp_path / 's'}", pretrained=True)
    settings = timm.data.resolve_model_data_config(loaded, use_test_size=True)  # as timm's validate.py asks
    transform = timm.data.create_transform(**settings, is_training=False, normalize=False)
    wide = (60, 60) if crop_pct < 1.0 else (75, 60)  # where the whole picture is seen, of any shape
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*wide, 3), dtype=np.uint8))
    assert np.array_equal(transform(picture).numpy(), eval_view(picture, data))
    assert "label_names" not in loaded.pretrained_cfg or not loaded.pretrained_cfg["label_names"]


def test_a_student_keeps_the_view_it_was_measured_on(tmp_path: Path):
    data = ImageFolderData(path=tmp_path, img_size=32, crop="none", crop_pct=1.0, interpolation="bilinear")
    facts = replace(FACTS, view=timm_view(data))
    images = ImageSpec(32, 3, ("ant", "bee"))
    export_network(build_student(StudentConfig(model="resnet10t"), images), tmp_path / "s", images=images, facts=facts)
    saved = json.loads((tmp_path / "s" / "config.json").read_text())["pretrained_cfg"]
    assert (saved["crop_mode"], saved["interpolation"], saved["crop_pct"]) == ("squash", "bilinear", 1.0)


def test_the_architectures_own_test_size_gives_way_to_the_runs(tmp_path: Path):
    network = exported(tmp_path / "student", ImageSpec(64, 3, ("ant", "bee")), model="resnet10t")
    assert network.model.pretrained_cfg["test_input_size"] == (3, 224, 224)
    loaded = timm.create_model(f"local-dir:{tmp_path / 'student'}", pretrained=True)
    settings = timm.data.resolve_model_data_config(loaded, use_test_size=True)
    assert (settings["input_size"], settings["crop_pct"]) == ((3, 64, 64), 1.0)
