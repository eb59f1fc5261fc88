"""Checkpoints of other layouts as teachers."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hard_ray_cli.main import app
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import hard_ray.networks  # noqa: F401
from hard_ray.api import import_teacher
from hard_ray.config.loader import load_config
from hard_ray.config.networks import TeacherConfig
from hard_ray.config.teacher_training import load_teacher_config, teacher_run
from hard_ray.data.sources.build import build_index
from hard_ray.errors import ConfigError, ModelError, RunFolderError
from hard_ray.networks.network import ImageSpec, build_teacher
from hard_ray.preparation.checks import examine
from tests.support.helpers import Trap, make_image_folder, run_here, student_weights

CLASSES = ("ant", "bee", "cat")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SPEC = ImageSpec(32, 3, CLASSES)
MODEL = "cifar_resnet8"


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return timm.create_model(MODEL, num_classes=3).state_dict()


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    path = tmp_path / "classes.txt"
    path.write_text("".join(f"{name}\n" for name in CLASSES))
    return path


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def prefixed(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in weights.items()}


def assert_imported(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    found = load_file(folder / "model.safetensors")
    assert found.keys() == weights.keys()
    for key, value in weights.items():
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"state_dict": prefixed(w, "module."), "epoch": 3, "best_prec1": 93.1},
        lambda w: {"model": w, "optimizer": {"state": {}}},
        lambda w: {"model_state_dict": prefixed(w, "_orig_mod.")},
        lambda w: {"ema": prefixed(w, "module."), "state_dict": {k: torch.zeros_like(v) for k, v in w.items()}},
        lambda w: {"state_dict": prefixed(w, "model.")},
        lambda w: prefixed(w, "_orig_mod.module."),
        lambda w: prefixed(w, "module.model."),
        lambda w: {"model_state_dict": {"model": w}},
        lambda w: {**prefixed(w, "module."), "n_averaged": torch.tensor(5)},
    ],
    ids=["bare", "state_dict", "model", "compiled", "ema", "lightning", "both", "nested", "twice", "averaged"],
)
def test_wrappers_and_prefixes_are_taken_off(wrap, weights: dict, classes: Path, tmp_path: Path):
    path = saved(wrap(weights), tmp_path / "w.pth")
    import_teacher(path, tmp_path / "t", model=MODEL, classes=classes)
    assert_imported(tmp_path / "t", weights)


def test_a_checkpoint_without_update_counters_is_taken(weights: dict, classes: Path, tmp_path: Path):
    old = {key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}
    save_file(old, tmp_path / "w.safetensors")
    import_teacher(tmp_path / "w.safetensors", tmp_path / "t", model=MODEL, classes=classes)
    assert_imported(tmp_path / "t", weights)


def test_the_folder_is_a_teacher_with_the_contract_that_was_given(weights: dict, classes: Path, tmp_path: Path):
    path = saved({"state_dict": weights}, tmp_path / "w.pth")
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    made = import_teacher(path, tmp_path / "t", model=MODEL, classes=classes, mean=mean, std=std)
    assert made.names == CLASSES
    teacher = build_teacher(TeacherConfig(model=MODEL, checkpoint=tmp_path / "t"), SPEC)
    model = timm.create_model(MODEL, num_classes=3).eval()
    model.load_state_dict(weights)
    images = torch.rand(2, 3, 32, 32)
    expected = model((images - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1))
    torch.testing.assert_close(teacher(images), expected)
    assert teacher.identity() == made.network.identity()
    with pytest.raises(ModelError, match="saved with another class order"):
        build_teacher(TeacherConfig(model=MODEL, checkpoint=tmp_path / "t"), ImageSpec(32, 3, CLASSES[::-1]))
    card = (tmp_path / "t/README.md").read_text()
    assert "imported by hardray" in card and "w.pth, SHA-256 " in card and str(tmp_path) not in card


def test_without_names_the_order_is_not_compared(weights: dict, tmp_path: Path):
    made = import_teacher(saved(weights, tmp_path / "w.pth"), tmp_path / "t", model=MODEL)
    assert made.names is None
    assert len(made.images.classes) == 3
    build_teacher(TeacherConfig(model=MODEL, checkpoint=tmp_path / "t"), SPEC)


def test_grey_weights_make_a_grey_teacher(tmp_path: Path):
    weights = timm.create_model(MODEL, num_classes=4, in_chans=1).state_dict()
    made = import_teacher(saved(weights, tmp_path / "w.pth"), tmp_path / "t", model=MODEL, mean=[0.5], std=[0.5])
    assert made.images.in_chans == 1
    spec = ImageSpec(32, 1, tuple("abcd"))
    assert build_teacher(TeacherConfig(model=MODEL, checkpoint=tmp_path / "t"), spec).contract.mean == (0.5,)


def test_renames_turn_foreign_keys_into_the_architectures(weights: dict, classes: Path, tmp_path: Path):
    foreign = {
        key.replace("layer", "stage_").replace("linear.", "head.fc."): value
        for key, value in prefixed(weights, "net.").items()
    }
    foreign["aux.weight"] = torch.zeros(3)
    renames = [r"^net\.=", r"^stage_(\d)=layer\1", r"^head\.fc=linear", "^aux.*="]
    path = saved(foreign, tmp_path / "w.pth")
    import_teacher(path, tmp_path / "t", model=MODEL, classes=classes, renames=renames)
    assert_imported(tmp_path / "t", weights)


def test_what_does_not_fit_is_listed_with_what_to_do(weights: dict, classes: Path, tmp_path: Path):
    without_one = {key: value for key, value in prefixed(weights, "backbone.").items() if "layer1" not in key}
    path = saved(without_one, tmp_path / "w.pth")
    with pytest.raises(ModelError) as caught:
        import_teacher(path, tmp_path / "t", model=MODEL, classes=classes)
    text = str(caught.value)
    assert "keys missing: conv1.weight, bn1.weight" in text and "more" in text
    assert r"what to do: --rename '^backbone\.=' removes" in text
    other = {**weights, "stranger": torch.zeros(2), "bn1.weight": torch.zeros(7)}
    del other["conv1.weight"]
    with pytest.raises(ModelError) as caught:
        import_teacher(saved(other, path), tmp_path / "t", model=MODEL, classes=classes)
    text = str(caught.value)
    assert "1 key missing: conv1.weight" in text
    assert "1 key unexpected: stranger" in text
    assert "1 key of another shape: bn1.weight ((7,) in the file, (16,) in the model)" in text
    assert "--rename 'OLD=NEW'" in text
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"model": "cifar_resnet9"}, ModelError, "did you mean cifar_resnet"),
        ({"model": "cifar_resnet20"}, ModelError, "file is of a smaller model"),
        ({"renames": ["(=x"]}, ConfigError, "is not a regular expression"),
        ({"renames": ["x"]}, ConfigError, "want OLD=NEW"),
        ({"renames": ["nowhere=x"]}, ModelError, "finds nothing"),
        ({"renames": [".*=x"]}, ModelError, "makes one key"),
        ({"renames": [r"conv=\7"]}, ConfigError, "cannot stand for"),
        ({"mean": [0.1, 0.2]}, ModelError, "--mean has 2 values for 3 channels"),
        ({"mean": ["a"]}, ConfigError, "mean.0"),
    ],
)
def test_mistakes_are_messages(options: dict, error: type, words: str, weights: dict, tmp_path: Path):
    path = saved(weights, tmp_path / "w.pth")
    with pytest.raises(error) as caught:
        import_teacher(path, tmp_path / "t", **{"model": MODEL, **options})
    assert words in str(caught.value)
    assert not (tmp_path / "t").exists()


def test_names_that_are_not_as_many_as_the_outputs_are_refused(weights: dict, classes: Path, tmp_path: Path):
    path = saved(weights, tmp_path / "w.pth")
    classes.write_text("ant\nbee\n")
    with pytest.raises(ModelError, match="--classes names 2 classes, the checkpoint has 3 outputs"):
        import_teacher(path, tmp_path / "t", model=MODEL, classes=classes)
    classes.write_text("ant\nbee\nant\n")
    with pytest.raises(ModelError, match=r"--classes .*: the class 'ant' is a duplicate"):
        import_teacher(path, tmp_path / "t", model=MODEL, classes=classes)


def test_a_folder_that_is_there_is_kept(weights: dict, tmp_path: Path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t/notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="choose another --output"):
        import_teacher(saved(weights, tmp_path / "w.pth"), tmp_path / "t", model=MODEL)


def test_weights_of_something_else_and_weights_without_a_head_are_listed(weights: dict, tmp_path: Path):
    with pytest.raises(ModelError, match=r"keys missing: conv1.weight, (.|\n)*1 key unexpected: w\n.*--model ANOTHER"):
        import_teacher(saved({"w": torch.zeros(1)}, tmp_path / "w.pth"), tmp_path / "t", model=MODEL)
    trunk = {key: value for key, value in weights.items() if not key.startswith("linear.")}
    with pytest.raises(
        ModelError, match=r"keys missing: linear.weight, linear.bias\n.*the file has no class head: name"
    ):
        import_teacher(saved(trunk, tmp_path / "w.pth"), tmp_path / "t", model=MODEL)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}, torch.zeros(3)])
def test_a_file_without_weights_is_a_message(content: object, tmp_path: Path):
    with pytest.raises(ModelError, match="no state dict|is not a tensor"):
        import_teacher(saved(content, tmp_path / "w.pth"), tmp_path / "t", model=MODEL)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path):
    with pytest.raises(ModelError, match="cannot be read as weights"):
        import_teacher(saved({"state_dict": Trap(tmp_path / "pwned")}, tmp_path / "w.pth"), tmp_path / "t", model=MODEL)
    assert not (tmp_path / "pwned").exists()


def test_a_training_scripts_checkpoint_is_imported_and_what_was_chosen_is_printed(weights: dict, tmp_path: Path):
    content = {
        "state_dict": {key: torch.zeros_like(value) for key, value in weights.items()},
        "state_dict_ema": {f"student.{key}": value for key, value in weights.items()} | {"loss.weight": torch.ones(2)},
        "args": argparse.Namespace(model=MODEL, output=Path("x")),
        "metric": np.float64(93.1),
    }
    path = saved(content, tmp_path / "last.pth.tar")
    done = CliRunner().invoke(
        app, ["import-teacher", str(path), "--model", MODEL, "--output", str(tmp_path / "t")], env={"COLUMNS": "200"}
    )
    assert done.exit_code == 0, done.stderr
    assert_imported(tmp_path / "t", weights)
    for words in (
        "weights  the weights are the moving average 'state_dict_ema'; 'state_dict' is left out",
        "weights  the prefix 'student.' was taken off",
        "weights  keys without it were left out: 1, such as loss.weight",
    ):
        assert words in done.stdout


def test_a_pointer_of_git_lfs_is_said_to_be_one(tmp_path: Path):
    path = tmp_path / "pointer.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3141\n")
    done = CliRunner().invoke(app, ["import-teacher", str(path), "--model", MODEL, "--output", str(tmp_path / "t")])
    assert done.exit_code == 1
    assert "it is a pointer of Git LFS" in " ".join(done.stderr.split())


def command_of(text: str, word: str) -> list[str]:
    """The arguments of the printed command that has `word`."""
    (line,) = [line for line in text.splitlines() if line.startswith("  hardray ") and word in line]
    return line.split()[1:]


@pytest.mark.parametrize("names", [("ant", "bee"), ("ant", "bee", "cat", "dog")])
def test_fine_tuning_by_the_printed_command_starts_from_the_imported_weights(names: tuple[str, ...], tmp_path: Path):
    torch.manual_seed(3)
    weights = timm.create_model(MODEL, num_classes=len(names)).state_dict()
    (tmp_path / "classes.txt").write_text("\n".join(names))
    path = saved({"state_dict": prefixed(weights, "module.")}, tmp_path / "w.th")
    arguments = ["import-teacher", str(path), "--model", MODEL, "--classes", str(tmp_path / "classes.txt")]
    done = CliRunner().invoke(
        app, [*arguments, "--mean", "0.5,0.5,0.5", "--std", "0.25", "--output", str(tmp_path / "t")]
    )
    assert done.exit_code == 0, done.stderr
    data = make_image_folder(tmp_path / "data")  # of ants and bees
    verb, *fine_tune = command_of(done.stdout, "--output runs/teacher")
    assert verb == "train-teacher"
    overrides = [f"teacher.model={fine_tune[fine_tune.index('--model') + 1]}"]
    overrides += [item for item in fine_tune if "=" in item] + [f"data.path={data}", "data.kind=image_folder"]
    # an update that moves nothing leaves what training starts from
    still = ["lr=1e-20", "warmup_lr=1e-20", "steps=1", "batch_size=8"]
    overrides += [*(f"teacher.recipe.{item}" for item in still), "runtime.threads=1", "runtime.amp_dtype=float32"]
    config = teacher_run(load_teacher_config(overrides=[*overrides, "tracking.enabled=false"]))
    examine(config)
    run_here(config, tmp_path / "run")
    trained = student_weights(tmp_path / "run")
    model = timm.create_model(MODEL, num_classes=2)
    for key, _ in model.named_parameters():
        if key.startswith("linear.") and len(names) != 2:
            assert trained[key].shape[0] == 2
            continue
        torch.testing.assert_close(trained[key], weights[key], rtol=0, atol=1e-15, msg=key)
    teach = command_of(done.stdout, "runs/teacher/student")
    overrides = [item for item in teach if "=" in item and "STUDENT" not in item]
    overrides = [item.replace("runs/teacher/student", str(tmp_path / "run/student")) for item in overrides]
    overrides += [f"data.path={data}", "data.kind=image_folder", f"student.model={MODEL}", "optim.batch_size=8"]
    taught = load_config(overrides=overrides)
    _, _, teacher = examine(taught)
    assert teacher.contract.mean == (0.5, 0.5, 0.5)
    assert build_index(taught.data).classes == ("ant", "bee")


@pytest.mark.parametrize(
    ("model", "file"), [("cifar_resnet20", "resnet20-12fca82f"), ("cifar_resnet56", "resnet56-4bfd9763")]
)
def test_published_weights_keep_their_accuracy(model: str, file: str, shared_data: Path, tmp_path: Path):
    (tmp_path / "classes.txt").write_text("\n".join(CIFAR10))
    arguments = ["import-teacher", str(shared_data / "weights" / f"cifar10_{file}.th"), "--model", model]
    arguments += ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--output", str(tmp_path / "t")]
    done = CliRunner().invoke(app, [*arguments, "--classes", str(tmp_path / "classes.txt")])
    assert done.exit_code == 0, done.stderr
    teacher = build_teacher(TeacherConfig(model=model, checkpoint=tmp_path / "t"), ImageSpec(32, 3, CIFAR10))
    data = np.load(shared_data / "cifar10" / "cifar10_lossless_4k.npz")
    images = torch.from_numpy(data["x"][:1000]).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        answers = torch.cat([teacher(part).argmax(dim=1) for part in images.split(250)])
    # its own training images: 99.8 and 99.9 % of all 4,000
    assert (answers.numpy() == data["y"][:1000]).mean() > 0.995
