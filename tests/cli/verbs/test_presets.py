"""The dry run of every preset of a published recipe, on small images that are made here and without a network."""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torchvision
from PIL import Image

from hard_ray.config.presets import preset_description, preset_names
from hard_ray.data.generated_set import MANIFEST
from tests.cli.commands import invoke
from tests.support.data_folders import folder_index
from tests.support.helpers import make_image_folder

SMALL = {
    "kd-thrives-imagenet": (
        "teacher={model: resnet18, pretrained: false}",  # in place of ResNet-34 with torchvision's weights
        "data.img_size=32",
    ),
    "dad-vit": (
        "teacher={model: vit_tiny_patch16_224, pretrained: false}",  # in place of CLIP ViT-L
        "student={model: vit_tiny_patch16_224, pretrained: false}",  # in place of ViT-B/16 with its weights
    ),
    "dad-resnet50": (
        "teacher={model: vit_tiny_patch16_224, pretrained: false}",  # in place of CLIP ViT-L
        "student={model: resnet18, pretrained: false}",  # in place of ResNet-50 with torchvision's weights
    ),
}
"""What takes the place of large networks, whose weights would be downloaded; the rest is the preset's."""


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 small images of two classes in place of ImageNet."""
    return make_image_folder(tmp_path_factory.mktemp("imagenet"), per_class=150)


@pytest.fixture(scope="module")
def generated(imagenet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished set with a grey picture for each of those images."""
    folder, index = tmp_path_factory.mktemp("generated"), folder_index(imagenet)
    stream = io.BytesIO()
    Image.new("RGB", (24, 20), (128,) * 3).save(stream, "PNG")
    rows = index.rows("train")
    table = pa.table(
        {
            "sample_id": [str(row) for row in rows],
            "image": [{"bytes": stream.getvalue(), "path": None}] * len(rows),
            "label": pa.array(index.labels[rows], pa.int32()),
            "logits": pa.array([[0.0, 0.0]] * len(rows), pa.list_(pa.float32())),
        }
    )
    pq.write_table(table, folder / "shard-00000.parquet")
    told = {"complete": True, "data_fingerprint": index.fingerprint(), "shards": [{"file": "shard-00000.parquet"}]}
    (folder / MANIFEST).write_text(json.dumps(told))
    return folder


def dry_run(preset: str, *overrides: str) -> str:
    done = invoke("distill", "--preset", preset, "--dry-run", *overrides)
    assert done.exit_code == 0, done.stderr
    return " ".join(done.stdout.split())


@pytest.mark.parametrize("preset", SMALL)
def test_the_presets_of_imagenet_can_be_run(preset: str, imagenet: Path, generated: Path):
    set_of_images = (f"augmentor.path={generated}",) if preset.startswith("dad") else ()
    text = dry_run(preset, f"data.path={imagenet}", *SMALL[preset], *set_of_images)
    assert "a student update of " in text
    assert "300 train" in text
    assert "in batches of 256" in text or "of 256 images" in text


def test_dad_vit_on_one_gpu_makes_its_update_in_eight_parts(imagenet: Path, generated: Path):
    given = (f"data.path={imagenet}", f"augmentor.path={generated}", *SMALL["dad-vit"])
    assert "a student update of " in dry_run("dad-vit", *given, "runtime.num_workers=1", "optim.accumulate=8")


def test_the_space_of_imagenet_vit_can_be_searched(imagenet: Path):
    """A trial has the recipe of dad-vit, with learned views in place of generated images."""
    given = ("tune", "--space", "imagenet-vit", "--dry-run", f"data.path={imagenet}", *SMALL["dad-vit"])
    done = invoke(*given)
    assert done.exit_code == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "vit_tiny_patch16_224 teaches vit_tiny_patch16_224 on image_folder, hard" in text
    assert "an augmentor update (loss " in text


def test_the_preset_of_cifar_100_can_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """torchvision reads files of the true format, small ones; a teacher without weights is trained first."""
    folder = tmp_path / torchvision.datasets.CIFAR100.base_folder
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, count in (("train", 600), ("test", 100)):
        pixels = random.integers(0, 256, (count, 3 * 32 * 32), dtype=np.uint8)
        labels = [number % 100 for number in range(count)]
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "fine_labels": labels}))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"class {number}" for number in range(100)]}))
    meta = {**torchvision.datasets.CIFAR100.meta, "md5": None}
    changed = {"train_list": [["train", None]], "test_list": [["test", None]], "meta": meta}  # without checksums
    for name, value in changed.items():
        monkeypatch.setattr(torchvision.datasets.CIFAR100, name, value)
    text = dry_run("kd-thrives-cifar100", f"data.path={tmp_path}", "data.download=false", "data.val_fraction=0.1")
    for words in ("540 train, 100 test, 60 val", "100 classes", "trained first", "a teacher update by teacher.recipe"):
        assert words in text, text


def test_presets_are_listed_with_their_first_lines_in_a_column_of_their_own():
    width = max(map(len, preset_names())) + 2
    found: dict[str, str] = {}
    for line in invoke("presets").stdout.splitlines():
        name = line[:width].strip() or next(reversed(found))
        found[name] = f"{found.get(name, '')} {line[width:]}"
    listed = {name: " ".join(text.split()) for name, text in found.items()}
    assert listed == {name: preset_description(name) for name in preset_names()}
