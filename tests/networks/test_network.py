from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf

import hard_ray.networks  # noqa: F401
from hard_ray.config.networks import StudentConfig, TeacherConfig
from hard_ray.errors import ModelError
from hard_ray.networks.network import ImageSpec, build_student, build_teacher
from tests.support.helpers import Trap

GREY = ImageSpec(28, 1, tuple("0123456789"))
COLOUR = ImageSpec(32, 3, ("ant", "bee", "cat"))


def student(images: ImageSpec = COLOUR, **config: object) -> torch.nn.Module:
    return build_student(StudentConfig(**config), images)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # He et al. 2015, table 6: 0.27, 0.46, 0.66 and 0.85 million
        ("cifar_resnet20", 269_722),
        ("cifar_resnet32", 464_154),
        ("cifar_resnet44", 658_586),
        ("cifar_resnet56", 853_018),
        ("hardray_mlp", 784 * 512 + 512 + 512 * 128 + 128 + 128 * 32 + 32 + 32 * 10 + 10),
    ],
)
def test_registered_networks_have_the_published_size(name: str, parameters: int):
    model = timm.create_model(name, num_classes=10)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("name", ["cifar_resnet8", "hardray_cnn", "hardray_mlp"])
def test_our_networks_take_timms_dropout_and_precision(name: str):
    network = timm.create_model(name, drop_rate=0.5, device="cpu", dtype=torch.float64).train()
    features = torch.ones(4, network.num_features, dtype=next(network.parameters()).dtype)
    assert features.dtype == torch.float64
    dropped = network.forward_head(features, pre_logits=True)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(network.eval().forward_head(features, pre_logits=True), features)


def test_cifar_resnet_takes_the_published_weights(shared_data: Path):
    spec = ImageSpec(32, 3, tuple("0123456789"))
    path = shared_data / "weights" / "cifar10_resnet20-12fca82f.th"
    network = build_student(StudentConfig(model="cifar_resnet20", checkpoint=path), spec).eval()
    import numpy as np

    data = np.load(shared_data / "cifar10" / "cifar10_lossless_4k.npz")
    images = torch.from_numpy(data["x"][:256]).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        correct = (network(images).argmax(1).numpy() == data["y"][:256]).mean()
    assert correct > 0.98  # 99.8 % on these, its training images


def test_a_network_normalises_and_resizes_by_itself():
    network = student(model="resnet18", img_size=48, mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7]).eval()
    images = torch.rand(2, 3, 32, 32)
    resized = torch.nn.functional.interpolate(images, size=(48, 48), mode="bicubic", antialias=True)
    mean, std = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1), torch.tensor([0.5, 0.6, 0.7]).view(1, 3, 1, 1)
    torch.testing.assert_close(network(images), network.model((resized - mean) / std))


def test_a_fixed_architecture_is_built_for_the_data_or_for_the_size_asked_for():
    assert student(model="vit_tiny_patch16_224").contract.size == (32, 32)
    assert student(model="vit_tiny_patch16_224", img_size=64).contract.size == (64, 64)
    assert student(model="resnet18").contract.size is None
    assert student(model="hardray_mlp")(torch.rand(2, 3, 32, 32)).shape == (2, 3)


def test_an_unknown_model_is_answered_with_near_ones():
    with pytest.raises(ModelError, match=r"student.model resnett18: timm knows no such model; did you mean resnet18"):
        student(model="resnett18")


def test_unknown_weights_of_a_known_model_are_answered_with_near_ones():
    with pytest.raises(ModelError, match=r"knows no weights 'a1_in1' of resnet18; did you mean a1_in1k"):
        student(model="resnet18.a1_in1")
    with pytest.raises(ModelError, match=r"knows no weights 'imagenet' of resnet18; there are a1_in1k, "):
        student(model="resnet18.imagenet")


def test_weights_that_do_not_exist_and_wrong_arguments_say_what_to_do():
    with pytest.raises(ModelError, match=r"No pretrained weights exist .* or bring the weights as student.checkpoint"):
        student(model="cifar_resnet8", pretrained=True)
    with pytest.raises(ModelError, match=r"unexpected keyword argument 'foo'\); want .*; correct student.model_kwargs"):
        student(model="resnet18", model_kwargs={"foo": 1})


def test_a_checkpoint_that_does_not_fit_names_the_first_of_each_kind(tmp_path: Path):
    weights = timm.create_model("resnet18", num_classes=3).state_dict()
    weights["stranger"] = weights.pop("bn1.weight")
    weights["fc.bias"] = torch.zeros(7)
    save_file({key: value.clone() for key, value in weights.items()}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError) as caught:
        student(model="resnet18", checkpoint=tmp_path / "w.safetensors")
    text = str(caught.value)
    assert "does not fit student.model" in text
    assert "1 key missing: bn1.weight" in text
    assert "1 key unexpected: stranger" in text
    assert "1 key of another shape, of the class head: fc.bias ((7,) in the file, (3,) in the model)" in text


def test_wrappers_around_a_state_dict_are_taken_off(tmp_path: Path):
    model = timm.create_model("cifar_resnet8", num_classes=3)
    wrapped = {"state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}, "epoch": 3}
    torch.save(wrapped, tmp_path / "w.pt")
    loaded = student(model="cifar_resnet8", checkpoint=tmp_path / "w.pt").model
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path):
    torch.save({"state_dict": Trap(tmp_path / "pwned")}, tmp_path / "evil.pt")
    with pytest.raises(ModelError, match="cannot be read as weights"):
        student(model="cifar_resnet8", checkpoint=tmp_path / "evil.pt")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04broken"])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_broken_checkpoint_is_a_message(tmp_path: Path, content: bytes, suffix: str):
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read as weights"):
        student(model="cifar_resnet8", checkpoint=path)


def test_a_missing_checkpoint_is_a_message(tmp_path: Path):
    with pytest.raises(ModelError, match="there is no such file"):
        student(model="cifar_resnet8", checkpoint=tmp_path / "w.pt")


def saved_by_timm(folder: Path, labels: list[str], name: str = "cifar_resnet8", **arguments: object) -> Path:
    torch.manual_seed(1)
    model = timm.create_model(name, num_classes=len(labels), **arguments)
    save_for_hf(model, str(folder), model_config={"label_names": labels}, safe_serialization=True)
    return folder


@pytest.mark.parametrize("way", ["checkpoint", "model"])
def test_a_folder_that_timm_saved_is_a_teacher(tmp_path: Path, way: str):
    folder = saved_by_timm(tmp_path / "t", list(COLOUR.classes))
    config = (
        TeacherConfig(model="cifar_resnet8", checkpoint=folder)
        if way == "checkpoint"
        else TeacherConfig(model=f"local-dir:{folder}")
    )
    teacher = build_teacher(config, COLOUR)
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    reference = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(teacher(images), reference((images - teacher.mean) / teacher.std))


def test_another_architecture_in_the_folder_is_refused(tmp_path: Path):
    folder = saved_by_timm(tmp_path / "t", list(COLOUR.classes))
    with pytest.raises(ModelError, match="holds a cifar_resnet8, teacher.model says resnet18"):
        build_teacher(TeacherConfig(model="resnet18", checkpoint=folder), COLOUR)


def test_a_teacher_with_other_classes_is_refused(tmp_path: Path):
    folder = saved_by_timm(tmp_path / "count", ["ant", "bee", "cat", "dog"])
    with pytest.raises(ModelError, match="has 4 outputs, the data has 3 classes"):
        build_teacher(TeacherConfig(model=f"local-dir:{folder}"), COLOUR)
    folder = saved_by_timm(tmp_path / "order", ["bee", "ant", "cat"])
    with pytest.raises(ModelError, match="'ant' is its output 1, and class 0 of the data"):
        build_teacher(TeacherConfig(model=f"local-dir:{folder}"), COLOUR)
    folder = saved_by_timm(tmp_path / "names", ["n01", "n02", "n03"])
    with pytest.raises(ModelError, match="their order cannot be compared"):
        build_teacher(TeacherConfig(model=f"local-dir:{folder}"), COLOUR)


def test_a_student_in_another_order_is_refused(tmp_path: Path):
    folder = saved_by_timm(tmp_path / "order", ["bee", "ant", "cat"])
    with pytest.raises(ModelError, match="student.model was saved with another class order"):
        student(model=f"local-dir:{folder}")


def test_a_class_map_picks_and_orders_the_teachers_outputs(tmp_path: Path):
    folder = saved_by_timm(tmp_path / "t", ["a", "b", "c", "d", "e"])
    names = tmp_path / "names.txt"
    names.write_text("cat\nzebra\nant\nyak\nbee\n")
    teacher = build_teacher(TeacherConfig(model=f"local-dir:{folder}", class_map=names), COLOUR)
    whole = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(teacher(images), whole((images - teacher.mean) / teacher.std)[:, [2, 4, 0]])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cat\nant\nyak\nbee\n", "names 4 classes"),
        ("cat\nzebra\nyak\nbee\nelk\n", "lacks 1 of the data's classes, first 'ant'"),
        ("cat\ncat\nant\nyak\nbee\n", "'cat' is a duplicate"),
    ],
)
def test_a_wrong_class_map_is_refused(tmp_path: Path, text: str, words: str):
    folder = saved_by_timm(tmp_path / "t", ["a", "b", "c", "d", "e"])
    names = tmp_path / "names.txt"
    names.write_text(text)
    with pytest.raises(ModelError, match=words):
        build_teacher(TeacherConfig(model=f"local-dir:{folder}", class_map=names), COLOUR)


def test_channels_that_do_not_fit_are_refused(tmp_path: Path):
    folder = saved_by_timm(tmp_path / "t", list("0123456789"))
    with pytest.raises(ModelError, match=r"takes 3 channels, the data has 1; set data.in_chans=3"):
        build_teacher(TeacherConfig(model=f"local-dir:{folder}"), GREY)


def test_identity_changes_with_weights_contract_and_class_order():
    def network(seed: int = 0, **config: object) -> str:
        torch.manual_seed(seed)
        return student(model="cifar_resnet8", **config).identity()

    assert network() == network()
    others = {network(), network(seed=1), network(mean=[0.0, 0.0, 0.0]), network(img_size=48)}
    assert len(others) == 4


def test_weights_that_cannot_be_fetched_are_a_message(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"student.model resnet18.a1_in1k cannot be made"):
        student(model="resnet18.a1_in1k", pretrained=True)


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (3, 32, 32)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]):
    # one grey channel would broadcast against three means in silence
    with pytest.raises(ValueError, match=r"want images of shape \(batch, 3, height, width\)"):
        student(model="cifar_resnet8")(torch.rand(shape))
