"""Teachers whose outputs are no classes are refused, and the message names the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import get_pretrained_cfg

from hard_ray.config.networks import StudentConfig, TeacherConfig
from hard_ray.errors import ModelError
from hard_ray.networks.network import ImageSpec, build_student, build_teacher
from hard_ray.networks.outputs import embedding_axes

NAMES = tuple(f"class {number}" for number in range(512))
VIT = {"img_size": 32, "patch_size": 16, "embed_dim": 24, "depth": 1, "num_heads": 2}


class Described:
    """Stands for a model with the weights of a tag."""

    def __init__(self, name: str, **changes: Any) -> None:
        cfg = get_pretrained_cfg(name)
        self.pretrained_cfg = {**cfg.to_dict(), **changes}
        self.num_classes = self.pretrained_cfg["num_classes"]


@pytest.mark.parametrize(
    ("name", "axes"),
    [
        ("vit_base_patch16_clip_224.openai", 512),
        ("vit_large_patch14_clip_224.laion2b", 768),
        ("resnet50_clip.openai", 1024),
        ("convnext_base.clip_laion2b", 640),
        ("vitamin_small_224.datacomp1b_clip", 384),
        ("vit_base_patch16_siglip_224.webli", 0),
        ("vit_base_patch14_dinov2.lvd142m", 0),
        ("vit_base_patch16_dinov3.lvd1689m", 0),
        ("vit_base_patch16_clip_224.openai_ft_in1k", None),
        ("vit_base_patch16_clip_224.laion2b_ft_in12k", None),
        ("resnet50.a1_in1k", None),
        ("mobilenetv3_large_100.miil_in21k", None),
        ("mvitv2_base_cls.fb_inw21k", None),
        ("vit_base_patch16_224.bamboo", None),
    ],
)
def test_weights_of_timm_have_classes_or_axes(name: str, axes: int | None):
    assert embedding_axes(Described(name)) == axes


def test_every_count_of_outputs_in_timm_is_known_to_be_of_classes_or_of_an_embedding():
    """A new set of classes in timm must be added to `CLASS_COUNTS`: this finds it by its weights' names."""
    trained_on_texts = ("clip", "mci", "vitamin", "vit_pe_core")
    others = [
        name
        for name in timm.list_models(pretrained=True)
        if embedding_axes(Described(name)) and not any(part in name for part in trained_on_texts)
    ]
    assert others == []


def test_own_weights_with_as_many_classes_are_no_axes_if_they_name_them():
    assert embedding_axes(Described("vit_base_patch16_clip_224.openai", label_names=list(NAMES))) is None
    assert embedding_axes(Described("vit_base_patch16_clip_224.openai", num_classes=10)) is None
    assert embedding_axes(Described("vit_base_patch16_clip_224.openai", tag="")) is None


def clip_folder(folder: Path, **changes: Any) -> Path:
    """A tiny model that says it has CLIP's weights, with 512 outputs."""
    torch.manual_seed(0)
    model = timm.create_model("vit_base_patch16_clip_224.openai", pretrained=False, num_classes=512, **VIT)
    model.pretrained_cfg.update(changes)
    timm.models.save_for_hf(model, str(folder), safe_serialization=True)
    return folder


def test_512_classes_of_data_do_not_pass_for_512_axes(tmp_path: Path):
    folder = clip_folder(tmp_path / "clip")
    with pytest.raises(ModelError, match=r"512 outputs, which are axes of an embedding.*hardray fit-head"):
        build_teacher(TeacherConfig(model=f"local-dir:{folder}"), ImageSpec(32, 3, NAMES))
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    named = TeacherConfig(model=f"local-dir:{folder}", class_map=tmp_path / "names.txt")
    assert build_teacher(named, ImageSpec(32, 3, NAMES)).model.num_classes == 512


def test_a_tower_without_a_head_is_refused_as_a_teacher(tmp_path: Path):
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **VIT)
    timm.models.save_for_hf(model, str(tmp_path / "tower"), safe_serialization=True)
    with pytest.raises(ModelError, match=r"has no class head; .*hardray fit-head --kind probe --tower local-dir"):
        build_teacher(TeacherConfig(model=f"local-dir:{tmp_path / 'tower'}"), ImageSpec(32, 3, ("a", "b")))


def test_fine_tuning_replaces_axes_by_a_new_head_even_if_there_are_as_many_classes(tmp_path: Path):
    folder = clip_folder(tmp_path / "clip")
    student = build_student(
        StudentConfig(model=f"local-dir:{folder}", new_head=True), ImageSpec(32, 3, NAMES), role="teacher"
    )
    assert student.has_new_head
