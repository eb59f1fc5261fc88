"""Networks that answer with their tokens beside an embedding, and students that project theirs to a teacher's."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from hard_ray.config.networks import StudentConfig, TeacherConfig
from hard_ray.distillation.embedding import EmbeddingAugmentorObjective
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool, TeacherSpec
from hard_ray.errors import ModelError
from hard_ray.export.backbone import PROJECTION, projection_facts
from hard_ray.export.student import export
from hard_ray.export.timm_folder import EvalView, TrainingFacts, export_network
from hard_ray.maths.tokens import AnswerLayout, EmbeddingDistance
from hard_ray.networks.embedding import as_tower, build_projected, build_tower, check_projection
from hard_ray.networks.network import ImageSpec, Network, build_student
from hard_ray.networks.tokens import FeatureMap, token_projection

GREY = ImageSpec(28, 1, tuple("0123456789"))
COLOUR = ImageSpec(32, 3, ("ant", "bee"))
FACTS = TrainingFacts("digits", 1297, "hardray_cnn", "embedding", "affine", 1000, EvalView())
VIT = {"depth": 2, "embed_dim": 24, "num_heads": 2, "patch_size": 8, "class_token": True, "reg_tokens": 3}
SWIN = {"depths": (1, 1), "embed_dim": 8, "num_heads": (1, 2), "patch_size": 4, "window_size": 4}
LAYOUT = AnswerLayout(dimension=5, rows=3, columns=3, width=6)
MAPS = [
    (GREY, "hardray_cnn", {"widths": (4, 8)}, FeatureMap("NCHW", 14, 14, 8)),
    (COLOUR, "cifar_resnet8", {}, FeatureMap("NCHW", 8, 8, 64)),
    (COLOUR, "vit_tiny_patch16_224", VIT, FeatureMap("NLC", 4, 4, 24, 4)),
    (COLOUR, "swin_tiny_patch4_window7_224", SWIN, FeatureMap("NHWC", 4, 4, 16)),
]
NAMED = pytest.mark.parametrize(
    ("spec", "model", "more", "wanted"), MAPS, ids=lambda value: value if isinstance(value, str) else ""
)


def some_images(spec: ImageSpec) -> torch.Tensor:
    shape = (3, spec.in_chans, spec.img_size, spec.img_size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def student(spec: ImageSpec, model: str, layout: AnswerLayout = LAYOUT, **more: object) -> Network:
    torch.manual_seed(0)
    return build_projected(StudentConfig(model=model, **more), spec, layout.dimension, layout=layout).eval()


def positions(found: FeatureMap, features: torch.Tensor) -> torch.Tensor:
    """Shape (batch, rows, columns, channels), each order by hand."""
    if found.order == "NCHW":
        return torch.stack([torch.stack(row.unbind(2), 1) for row in features.unbind(2)], 1)
    if found.order == "NHWC":
        return features
    kept = features[:, found.prefix :]
    return torch.stack([kept[:, row * found.columns : (row + 1) * found.columns] for row in range(found.rows)], 1)


@NAMED
def test_a_tower_answers_with_its_embedding_and_its_normalised_tokens(
    spec: ImageSpec, model: str, more: dict, wanted: FeatureMap
):
    config = StudentConfig(model=model, model_kwargs=more)
    torch.manual_seed(1)
    network = build_student(config, spec).eval()
    tower = as_tower(network, config, spec)
    with torch.inference_mode():
        embedding, images = tower(some_images(spec)), (some_images(spec) - network.mean) / network.std
        features = positions(wanted, network.model.forward_features(images)).flatten(1, 2)
        as_tower(network, config, spec, with_tokens=True)
        answer = tower(some_images(spec))
    assert tower.tokens.map == wanted
    assert tower.tokens.layout == AnswerLayout(embedding.shape[1], wanted.rows, wanted.columns, wanted.width)
    torch.testing.assert_close(tower.tokens.layout.embedding(answer), embedding)
    scaled = (features - features.mean(2, keepdim=True)) / (features.var(2, correction=0, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(tower.tokens.layout.tokens(answer), scaled)


@NAMED
def test_a_student_resizes_its_map_and_projects_it(spec: ImageSpec, model: str, more: dict, wanted: FeatureMap):
    network = student(spec, model, model_kwargs=more)
    check_projection(network, model, spec)
    layer = token_projection(network.model)
    with torch.inference_mode():
        images = (some_images(spec) - network.mean) / network.std
        features = positions(wanted, network.model.forward_features(images)).permute(0, 3, 1, 2)
        resized = F.interpolate(features, size=(3, 3), mode="bilinear", align_corners=False)
        tokens = torch.einsum("bcij,wc->bijw", resized, layer.weight) + layer.bias
        answer = network(some_images(spec))
        embedding = network.model.forward_head(network.model.forward_features(images))
    assert network.tokens.map == wanted
    torch.testing.assert_close(LAYOUT.tokens(answer), tokens.flatten(1, 2))
    torch.testing.assert_close(LAYOUT.embedding(answer), embedding)


def test_a_student_without_tokens_is_the_same_to_the_bit():
    torch.manual_seed(0)
    plain = build_projected(StudentConfig(model="cifar_resnet8"), COLOUR, 5).eval()
    with_tokens = student(COLOUR, "cifar_resnet8")
    assert {f"token_projection.{name}" for name in ("weight", "bias")} == (
        with_tokens.model.state_dict().keys() - plain.model.state_dict().keys()
    )
    assert all(
        torch.equal(value, with_tokens.model.state_dict()[key]) for key, value in plain.model.state_dict().items()
    )
    with torch.inference_mode():
        assert torch.equal(LAYOUT.embedding(with_tokens(some_images(COLOUR))), plain(some_images(COLOUR)))


def test_a_frozen_tower_leaves_the_projections_to_be_trained():
    network = student(COLOUR, "cifar_resnet8", freeze="tower").train()
    learned = {name for name, parameter in network.model.named_parameters() if parameter.requires_grad}
    assert learned == {f"{layer}.{name}" for layer in ("linear", "token_projection") for name in ("weight", "bias")}


def test_recomputed_activations_give_the_same_gradient():
    found = []
    for again in (False, True):
        network = student(COLOUR, "vit_tiny_patch16_224", model_kwargs=VIT, grad_checkpointing=again).train()
        network(some_images(COLOUR)).square().sum().backward()
        found.append({name: parameter.grad for name, parameter in network.model.named_parameters()})
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, msg=name)


@pytest.mark.parametrize(
    ("model", "more", "message"),
    [
        ("hardray_mlp", {}, r"shape \(1, 32\), which have no positions; objective\.w_tokens wants a map"),
        ("resnet18", {}, r"shape \(1, 512, 1, 1\), which have no positions; .* make student\.img_size larger"),
        ("vit_tiny_patch16_224", {**VIT, "patch_drop_rate": 0.25}, r"leaves out 25 % of its patches in training"),
    ],
)
def test_a_network_without_positions_is_refused(model: str, more: dict, message: str):
    spec = GREY if model == "hardray_mlp" else COLOUR
    with pytest.raises(ModelError, match=message):
        student(spec, model, model_kwargs=more)


def test_a_teacher_without_positions_is_refused():
    with pytest.raises(ModelError, match=r"teacher\.model hardray_mlp answers .* or use objective\.w_tokens=0"):
        build_tower(StudentConfig(model="hardray_mlp"), GREY, with_tokens=True)


def saved_teacher(folder: Path) -> TeacherConfig:
    torch.manual_seed(3)
    network = build_student(StudentConfig(model="hardray_cnn"), GREY)
    network.train()(some_images(GREY))
    export_network(network, folder, images=GREY, facts=FACTS)
    return TeacherConfig(checkpoint=folder)


def test_the_pools_gradient_is_that_of_autograd_in_one_process(tmp_path: Path):
    spec = TeacherSpec(saved_teacher(tmp_path / "made"), GREY, embeds=True, with_tokens=True)
    pool = LocalPool(FrozenNetwork.build(spec))
    network, layout = pool.teacher.network, pool.teacher.network.tokens.layout
    pixels = np.random.default_rng(0).integers(0, 256, (4, 1, 28, 28), dtype=np.uint8)
    other = torch.randn(4, layout.size, generator=torch.Generator().manual_seed(1))
    images = (torch.from_numpy(pixels).float() / 255).requires_grad_()
    features = network.model.forward_features((images - network.mean) / network.std)
    embedding, tokens = features.mean(dim=(2, 3)), features.flatten(2).transpose(1, 2)
    tokens = (tokens - tokens.mean(2, keepdim=True)) / (tokens.var(2, correction=0, keepdim=True) + 1e-6).sqrt()

    def d(seen: torch.Tensor) -> torch.Tensor:
        difference = (tokens.flatten(1) - seen[:, 64:]).abs()
        far = torch.where(difference < 2, difference**2 / 4, difference - 1).mean(dim=1)
        return 1 - F.cosine_similarity(embedding, seen[:, :64]) + 0.5 * far

    clean = other.roll(1, 0)
    loss = 0.3 * d(clean) - d(other)
    (wanted,) = torch.autograd.grad(loss.sum(), [images])
    objective = EmbeddingAugmentorObjective(1.0, 0.3, distance=EmbeddingDistance(0.5, layout))
    context = {"student": other.numpy(), "clean": clean.numpy()}
    answer = pool.loss_and_grad(pixels, objective, context).result()
    assert answer.loss == pytest.approx(loss.detach().numpy(), rel=1e-4)
    assert np.abs(answer.grad - wanted.numpy()).max() <= 1e-4 * float(wanted.abs().max())
    assert answer.logits.shape == (4, layout.size)
    assert np.array_equal(answer.logits, pool.logits(pixels).result())


def test_a_teachers_identity_says_whether_it_answers_with_tokens(tmp_path: Path):
    config = saved_teacher(tmp_path / "made")
    plain, with_tokens = (
        FrozenNetwork.build(TeacherSpec(config, GREY, embeds=True, with_tokens=each)).identity()
        for each in (False, True)
    )
    assert AnswerLayout.from_identity(plain) is None
    assert AnswerLayout.from_identity(with_tokens) == AnswerLayout(64, 7, 7, 64)
    assert with_tokens == f"{plain}-tokens64+7x7x64"


@NAMED
def test_an_export_holds_both_projections_and_code_that_uses_them(
    tmp_path: Path, spec: ImageSpec, model: str, more: dict, wanted: FeatureMap
):
    network = student(spec, model, model_kwargs=more)
    folder = tmp_path / "student"
    export_network(network, folder, images=spec, facts=FACTS)
    export(folder, tmp_path / "out")
    assert set(load_file(folder / PROJECTION)) == {"weight", "bias", "tokens.weight", "tokens.bias"}
    assert not [key for key in load_file(folder / "model.safetensors") if "token_projection" in key]
    assert projection_facts(folder)["tokens"]["layout"] == {"dimension": 5, "rows": 3, "columns": 3, "width": 6}
    assert projection_facts(tmp_path / "out") == projection_facts(folder)
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    for place in (folder, tmp_path / "out"):
        card = (place / "README.md").read_text()
        code = card[card.index("import torch.nn.functional") :].split("```")[0].replace("PATH", str(place))
        given = {"model": loaded, "images": (some_images(spec) - network.mean) / network.std}
        with torch.inference_mode():
            exec(code, given)  # the code of the card
            answer = network(some_images(spec))
        torch.testing.assert_close(given["embedding"], LAYOUT.embedding(answer))
        torch.testing.assert_close(given["tokens"], LAYOUT.tokens(answer))
        assert "resized to a grid of 3 x 3, to the teacher's tokens of 6 values" in " ".join(card.split())


def test_an_export_without_tokens_does_not_mention_them(tmp_path: Path):
    network = build_projected(StudentConfig(model="hardray_cnn"), GREY, 5)
    export_network(network, tmp_path / "student", images=GREY, facts=FACTS)
    assert set(load_file(tmp_path / "student" / PROJECTION)) == {"weight", "bias"}
    assert "token" not in (tmp_path / "student" / "README.md").read_text()
    assert "token" not in json.dumps(projection_facts(tmp_path / "student"))
