"""Zero-shot heads: the logits are open_clip's own, and the teacher needs no text tower."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from hard_ray.config.heads import head_settings
from hard_ray.config.loader import load_config
from hard_ray.config.networks import TeacherConfig
from hard_ray.errors import ConfigError, HardrayError, ModelError
from hard_ray.networks.network import ImageSpec, build_teacher
from hard_ray.orchestration.fit_head import fit_head, plan_lines
from tests.support.tiny_clip import PREPROCESS, VIT, save_clip

open_clip = pytest.importorskip("open_clip", reason="the extra `clip` is not installed")
NAMES = ("ant", "bee", "wasp's nest")
PROMPTS = ("a photo of a {}.", "a drawing of the {}")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """CLIP's own tower, one with QuickGELU, and towers of timm with and without a projection of open_clip's."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("clip")
    (root / "names.txt").write_text("\n".join(NAMES))
    resnet = {"timm_model_name": "test_resnet", "image_size": 32, "timm_pool": "avg"}
    vit = {"timm_model_name": "test_vit", "image_size": 160, "timm_pool": "token"}
    return {
        "root": root,
        "clip": save_clip(root / "a clip"),
        "quick": save_clip(root / "quick", quick_gelu=True),
        "projected": save_clip(root / "projected", {**resnet, "timm_proj": "linear"}),
        "classifier": save_clip(root / "classifier", {**resnet, "timm_proj": ""}),
        "vit": save_clip(root / "vit", {**vit, "timm_proj": "linear", "timm_proj_bias": True}),
        "bias": save_clip(root / "bias", {**VIT}, init_logit_bias=-4.0, custom_text=True),
    }


def teacher_of(folder: Path, root: Path, output: Path, prompts: tuple[str, ...] = PROMPTS):
    head = head_settings({"kind": "zero-shot", "classes": str(root / "names.txt"), "prompts": list(prompts)})
    return fit_head(load_config(overrides=[f'teacher.model="local-dir:{folder}"']), head, output)


def longhand(folder: Path, images: torch.Tensor, prompts: tuple[str, ...]) -> torch.Tensor:
    """open_clip's forward pass: image features times the mean of the prompts' features, times the scale."""
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    mean, std = (torch.tensor(PREPROCESS[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        seen = F.normalize(model.visual((images - mean) / std), dim=1)
        classes = []
        for name in NAMES:
            texts = tokenizer([prompt.format(name) for prompt in prompts])
            classes.append(F.normalize(model.encode_text(texts), dim=1).mean(dim=0))
        directions = F.normalize(torch.stack(classes), dim=1)
        bias = 0.0 if model.logit_bias is None else model.logit_bias
        return model.logit_scale.exp() * seen @ directions.T + bias


@pytest.mark.parametrize("kind", ["clip", "quick", "projected", "classifier", "vit", "bias"])
def test_logits_are_those_of_open_clip(kind: str, places: dict[str, Path], tmp_path: Path):
    made = teacher_of(places[kind], places["root"], tmp_path / "teacher")
    network = build_teacher(TeacherConfig(model=f"local-dir:{made.folder}"), ImageSpec(32, 3, NAMES))
    side = 160 if kind == "vit" else 32
    images = torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = network(images)
    wanted = longhand(places[kind], images, PROMPTS)
    assert wanted.std() > 1e-2
    assert torch.allclose(found, wanted, atol=1e-5)


def test_one_prompt_gives_the_logits_of_the_whole_model(places: dict[str, Path], tmp_path: Path):
    made = teacher_of(places["clip"], places["root"], tmp_path / "teacher", ("a photo of a {}.",))
    network = build_teacher(TeacherConfig(model=f"local-dir:{made.folder}"), ImageSpec(32, 3, NAMES))
    model = open_clip.create_model(f"local-dir:{places['clip']}").eval()
    texts = open_clip.get_tokenizer(f"local-dir:{places['clip']}")([f"a photo of a {name}." for name in NAMES])
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        seen, told, scale = model((images - network.mean) / network.std, texts)
        assert torch.allclose(network(images), scale * seen @ told.T, atol=1e-5)


def test_the_teacher_loads_without_open_clip_and_holds_no_text_tower(places: dict[str, Path], tmp_path: Path):
    made = teacher_of(places["clip"], places["root"], tmp_path / "teacher")
    code = (
        "import sys; sys.modules['open_clip'] = None; import timm, hard_ray.networks; "
        f"m = timm.create_model('local-dir:{made.folder}', pretrained=True); print(*m.state_dict())"
    )
    keys = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert {key.partition(".")[0] for key in keys} == {"tower", "head"}
    assert not any("text" in key or "token_embedding" in key for key in keys)


def test_a_dry_run_says_what_the_head_will_be_and_writes_nothing(places: dict[str, Path], tmp_path: Path):
    head = head_settings({"kind": "zero-shot", "classes": str(places["root"] / "names.txt")})
    config = load_config(overrides=[f'teacher.model="local-dir:{places["clip"]}"'])
    lines = dict(plan_lines(config, head, tmp_path / "teacher"))
    assert "3 classes, 1 prompts" in lines["head"]
    assert "24 features" in lines["tower"]
    assert not (tmp_path / "teacher").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("ant\nbee\nant\n", "the class 'ant' is a duplicate"),
        ("\n", "names no class"),
        ("ant\n", "names one class; want two or more"),
    ],
)
def test_a_file_of_names_that_cannot_be_used_is_refused(
    content: str, words: str, places: dict[str, Path], tmp_path: Path
):
    (tmp_path / "names.txt").write_text(content)
    with pytest.raises(ModelError, match=words):
        teacher_of(places["clip"], tmp_path, tmp_path / "teacher")
    assert not (tmp_path / "teacher").exists()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("0", "1"), "names 2 classes, the data have 10"),
        (("1", "0", *"23456789"), "has '1' in line 1, where the data have '0'"),
    ],
)
def test_names_of_another_count_or_order_than_the_data_are_refused(
    names: tuple[str, ...], words: str, places: dict[str, Path], tmp_path: Path
):
    (tmp_path / "names.txt").write_text("\n".join(names))
    head = head_settings({"kind": "zero-shot", "classes": str(tmp_path / "names.txt")})
    config = load_config(overrides=[f'teacher.model="local-dir:{places["clip"]}"', "data.img_size=32"])
    with pytest.raises(ModelError, match=words):
        fit_head(config, head, tmp_path / "teacher")


@pytest.mark.parametrize("prompt", ["a photo", "{} and {}"])
def test_a_prompt_without_a_place_for_the_name_is_refused(prompt: str):
    with pytest.raises(ConfigError, match=r"want one \{\} where the class name goes"):
        head_settings({"kind": "zero-shot", "classes": "names.txt", "prompts": [prompt]})


def test_models_that_are_not_clip_are_refused(places: dict[str, Path], tmp_path: Path):
    head = head_settings({"kind": "zero-shot", "classes": str(places["root"] / "names.txt")})
    for tower, words in (
        ("resnet18", "is no CLIP model that open_clip loads"),
        (f"local-dir:{tmp_path}", "open_clip cannot load it"),
    ):
        with pytest.raises(HardrayError, match=words):
            fit_head(load_config(overrides=[f'teacher.model="{tower}"']), head, tmp_path / "teacher")


def test_a_tower_that_timm_does_not_make_is_refused(places: dict[str, Path], tmp_path: Path):
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 32}
    with pytest.raises(ModelError, match=r"timm does not make its image tower \(it is a ModifiedResNet\)"):
        teacher_of(save_clip(tmp_path / "resnet", vision), places["root"], tmp_path / "teacher")
