"""Networks that answer with features, and students that project theirs to a teacher's dimension."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from hard_ray.api import predict
from hard_ray.config.loader import load_config
from hard_ray.config.networks import StudentConfig, TeacherConfig
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.distillation.teacher import FrozenNetwork, TeacherSpec
from hard_ray.errors import ConfigError, ModelError
from hard_ray.export.backbone import PROJECTION, projection_facts
from hard_ray.export.named_model import find_model
from hard_ray.export.saved_model import load_model
from hard_ray.export.student import export
from hard_ray.export.target import target_of
from hard_ray.export.timm_folder import EvalView, TrainingFacts, export_network
from hard_ray.networks.embedding import (
    as_tower,
    build_projected,
    build_tower,
    check_projection,
    dimension_of,
    projection_of,
    split,
)
from hard_ray.networks.network import ImageSpec, Network, build_student

GREY = ImageSpec(28, 1, tuple("0123456789"))
COLOUR = ImageSpec(32, 3, ("ant", "bee"))
FACTS = TrainingFacts("digits", 1297, "hardray_cnn", "embedding", "affine", 1000, EvalView())
MODELS = [(GREY, "hardray_cnn", {}), (GREY, "hardray_mlp", {}), (COLOUR, "cifar_resnet8", {}), (COLOUR, "resnet18", {})]
MODELS += [(COLOUR, "vit_tiny_patch16_224", {}), (COLOUR, "convnext_atto", {"depths": (1, 1, 1, 1)})]


def some_images(spec: ImageSpec) -> torch.Tensor:
    shape = (3, spec.in_chans, spec.img_size, spec.img_size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def student(spec: ImageSpec, model: str, dimension: int = 5, **more: object) -> Network:
    torch.manual_seed(0)
    network = build_projected(StudentConfig(model=model, **more), spec, dimension)
    network.train()(some_images(spec))
    return network.eval()


@pytest.mark.parametrize(("spec", "model", "more"), MODELS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_tower_answers_with_the_features_before_the_class_head(spec: ImageSpec, model: str, more: dict):
    config = StudentConfig(model=model, model_kwargs=more)
    network = build_student(config, spec).eval()
    images = (some_images(spec) - network.mean) / network.std
    with torch.inference_mode():
        wanted = network.model.forward_head(network.model.forward_features(images), pre_logits=True)
        found = as_tower(network, config, spec)(some_images(spec))
    assert torch.equal(found, wanted)
    assert dimension_of(network, spec) == wanted.shape[1]


@pytest.mark.parametrize(("spec", "model", "more"), MODELS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_student_projects_its_features_linearly(spec: ImageSpec, model: str, more: dict):
    network = student(spec, model, model_kwargs=more)
    check_projection(network, model, spec)
    backbone, projection = split(network)
    with torch.inference_mode():
        features = backbone.eval()(some_images(spec))
        wanted = features @ projection.weight.T + projection.bias
        torch.testing.assert_close(network(some_images(spec)), wanted)
    assert wanted.shape == (3, 5)
    assert network.dimension == 5


@pytest.mark.parametrize("model", ["dpn48b", "deit_tiny_distilled_patch16_224"])
def test_a_student_whose_head_is_no_linear_layer_is_refused(model: str):
    with pytest.raises(ModelError, match=r"wants one linear layer.*name another student\.model"):
        build_projected(StudentConfig(model=model), COLOUR, 5)


def test_a_layer_between_features_and_projection_is_refused(monkeypatch: pytest.MonkeyPatch):
    network = student(GREY, "hardray_mlp")
    forward = network.model.forward_head
    monkeypatch.setattr(
        network.model, "forward_head", lambda x, pre_logits=False: forward(x, pre_logits) + (0.0 if pre_logits else 1.0)
    )
    with pytest.raises(ModelError, match="does more between its features and its answer"):
        check_projection(network, "hardray_mlp", GREY)


def saved_classifier(folder: Path) -> Network:
    torch.manual_seed(3)
    network = build_student(StudentConfig(model="hardray_cnn"), GREY)
    network.train()(some_images(GREY))
    export_network(network, folder, images=GREY, facts=FACTS)
    return network.eval()


def test_a_tower_is_loaded_from_a_classifiers_folder_or_file_whatever_its_classes(tmp_path: Path):
    network = saved_classifier(tmp_path / "made")
    with torch.inference_mode():
        wanted = network.model.forward_features(some_images(GREY)).mean(dim=(2, 3))
    other = replace(GREY, classes=("even", "odd"))
    save_file(network.model.state_dict(), tmp_path / "weights.safetensors")
    bare = {key: value for key, value in network.model.state_dict().items() if not key.startswith("head.")}
    save_file(bare, tmp_path / "bare.safetensors")
    for config in (
        TeacherConfig(model=f"local-dir:{tmp_path / 'made'}"),
        TeacherConfig(checkpoint=tmp_path / "made"),
        TeacherConfig(checkpoint=tmp_path / "weights.safetensors"),
        TeacherConfig(checkpoint=tmp_path / "bare.safetensors"),
    ):
        tower = build_tower(config, other)
        with torch.inference_mode():
            assert torch.equal(tower(some_images(GREY)), wanted)
        assert not any(parameter.requires_grad for parameter in tower.parameters())
        assert tower.identity() != network.identity()


def test_features_of_several_vectors_per_image_are_refused():
    with pytest.raises(ModelError, match=r"features of shape \(1, 5, 192\); want one vector; leave global_pool out"):
        build_tower(StudentConfig(model="vit_tiny_patch16_224", img_size=32, model_kwargs={"global_pool": ""}), COLOUR)


def test_a_pool_serves_the_embedding_and_its_gradient(tmp_path: Path):
    network = saved_classifier(tmp_path / "made")
    spec = TeacherSpec(TeacherConfig(checkpoint=tmp_path / "made"), GREY, embeds=True)
    teacher = FrozenNetwork.build(spec)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 1, 28, 28), dtype=np.uint8)
    images = (torch.from_numpy(pixels).float() / 255).requires_grad_()
    features = network.model.forward_features(images).mean(dim=(2, 3))
    assert np.array_equal(teacher.logits(pixels), features.detach().numpy())
    answer = teacher.loss_and_grad(pixels, lambda embedding, _: embedding.square().sum(dim=1), {})
    (wanted,) = torch.autograd.grad(features.square().sum(), [images])
    assert answer.grad == pytest.approx(wanted.numpy(), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(("spec", "model", "more"), MODELS, ids=lambda value: value if isinstance(value, str) else "")
def test_timm_loads_an_exported_backbone_with_equal_features(tmp_path: Path, spec: ImageSpec, model: str, more: dict):
    network = student(spec, model, model_kwargs=more)
    folder = tmp_path / "student"
    export_network(network, folder, images=spec, facts=FACTS)
    projection = load_file(folder / PROJECTION)
    assert projection_facts(folder) == {"dimension": 5, "teacher": "hardray_cnn"}
    assert "label_names" not in json.loads((folder / "config.json").read_text())
    for loaded in (
        timm.create_model(f"local-dir:{folder}", pretrained=True).eval(),
        timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval(),
    ):
        with torch.inference_mode():
            features = loaded((some_images(spec) - network.mean) / network.std)
            embedding = features @ projection["weight"].T + projection["bias"]
            torch.testing.assert_close(embedding, network(some_images(spec)))
    card = (folder / "README.md").read_text()
    assert "without classes" in card
    assert "to 5 values" in card
    assert "classifier" not in card


def test_an_export_does_not_tell_where_the_teacher_was(tmp_path: Path):
    facts = replace(FACTS, teacher="local-dir:/home/someone/towers/birds")
    export_network(student(GREY, "hardray_mlp"), tmp_path / "student", images=GREY, facts=facts)
    assert projection_facts(tmp_path / "student") == {"dimension": 5, "teacher": "local-dir:birds"}
    assert "someone" not in (tmp_path / "student" / "README.md").read_text()


def test_an_export_keeps_the_projection_and_names_no_classes(tmp_path: Path):
    network = student(GREY, "hardray_mlp")
    export_network(network, tmp_path / "student", images=GREY, facts=FACTS)
    done = export(tmp_path / "student", tmp_path / "out")
    assert (tmp_path / "out" / PROJECTION).read_bytes() == (tmp_path / "student" / PROJECTION).read_bytes()
    assert projection_facts(tmp_path / "out") == {"dimension": 5, "teacher": "hardray_cnn"}
    assert not done.model.has_classes
    assert not (tmp_path / "out" / "classes.txt").exists()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "without classes" in card
    assert not re.search("classifier|0 classes|predicts one", card)


def test_an_exported_backbone_starts_another_student_and_teaches(tmp_path: Path):
    network = student(GREY, "hardray_mlp")
    export_network(network, tmp_path / "student", images=GREY, facts=FACTS)
    backbone = load_model(find_model(str(tmp_path / "student"))).network
    torch.manual_seed(9)
    again = build_projected(StudentConfig(model=f"local-dir:{tmp_path / 'student'}"), GREY, 7)
    assert projection_of(again.model).out_features == 7
    tower = build_tower(TeacherConfig(model=f"local-dir:{tmp_path / 'student'}"), GREY)
    with torch.inference_mode():
        wanted = backbone(some_images(GREY))
        assert torch.equal(tower(some_images(GREY)), wanted)
        assert torch.equal(split(again)[0].eval()(some_images(GREY)), wanted)


def test_a_head_of_as_many_classes_as_the_embedding_has_values_is_no_projection(tmp_path: Path):
    network = saved_classifier(tmp_path / "made")
    for config in (
        StudentConfig(model=f"local-dir:{tmp_path / 'made'}"),
        StudentConfig(model="hardray_cnn", checkpoint=tmp_path / "made"),
    ):
        found = build_projected(config, GREY, 10)
        assert not torch.equal(found.model.head.weight, network.model.head.weight)
        assert torch.equal(found.model.stem[0].weight, network.model.stem[0].weight)


def test_verbs_that_name_classes_refuse_a_backbone_with_the_command_that_fits_a_head(tmp_path: Path):
    run = tmp_path / "run"
    export_network(student(GREY, "hardray_mlp"), run / "student", images=GREY, facts=FACTS)
    remedy = r"answers with features, not with classes; .* `hardray fit-head --kind probe --tower local-dir:.*/student"
    with pytest.raises(ModelError, match=remedy):
        predict(run / "student", [])
    (run / "config.yaml").write_text(dump_yaml(load_config(overrides=["objective.kind=embedding"])))
    with pytest.raises(ModelError, match=remedy):
        target_of(str(run), None)
    with pytest.raises(ConfigError, match="an evaluation measures classes"):
        target_of("resnet18", load_config(overrides=["objective.kind=embedding"]))
