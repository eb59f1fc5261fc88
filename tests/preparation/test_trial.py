"""What a dry run tries: whatever fails in the first minute of a run fails there, by the key that it is about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from hard_ray.config.loader import load_config
from hard_ray.config.run import RunConfig
from hard_ray.config.teacher_training import teacher_run
from hard_ray.errors import ConfigError, DataError, HardrayError, ModelError, TeacherError
from hard_ray.networks.network import build_student, image_spec
from hard_ray.preparation.checks import augmentor_notes, examine, training_notes
from hard_ray.preparation.trial import Trial, try_run
from tests.support.helpers import make_image_folder, tiny_config

KD = ("objective={kind: kd}", "augmentor={kind: identity}")


def tried(config: RunConfig, *, role: str = "student") -> tuple[Trial, list[str]]:
    torch.manual_seed(0)
    index, student, teacher = examine(config, role=role)
    return try_run(config, index, student, teacher, role=role)


def on_folder(root: Path, *overrides: str) -> RunConfig:
    """A tiny run on an image folder."""
    data = ("data.kind=image_folder", f"data.path={root}", "data.img_size=16", "data.in_chans=3")
    run = ("student.model=cifar_resnet8", "teacher.model=cifar_resnet8", "optim.batch_size=8", "optim.steps=4")
    return load_config(overrides=[*data, *run, "teacher.recipe.batch_size=8", "runtime.threads=1", *overrides])


def test_a_trial_makes_the_updates_of_a_run_and_says_so():
    before = torch.get_num_threads()
    trial, lines = tried(tiny_config())
    assert torch.get_num_threads() == before
    assert trial.images == 32
    assert np.isfinite(trial.loss) and trial.augmentor_loss is not None
    assert trial.student_s > 0 and trial.teacher_s > 0
    (line,) = lines
    for words in (
        "16 images of each split decoded",
        "a teacher update by teacher.recipe (loss ",
        f"a student update of 32 images (loss {trial.loss:.3g})",
        "an augmentor update (loss ",
    ):
        assert words in line


def test_the_tried_loss_is_the_one_of_the_runs_first_update(tmp_path: Path):
    """With the batch whole and no augmentor, the trial's first update is the run's."""
    import json

    from hard_ray.distillation.teacher import LocalPool
    from hard_ray.maths.noise import seed_of
    from tests.support.helpers import run_here, untrained_teacher

    config = tiny_config("augmentor={kind: identity}", "objective={kind: kd}", "tracking.log_every=1", "optim.steps=2")
    index, _, _ = examine(config)
    teacher = untrained_teacher(config, index)
    run_here(config, tmp_path / "run", LocalPool(teacher))
    first = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[0])
    torch.manual_seed(seed_of("student weights", config.seed))
    student = build_student(config.student, image_spec(config.data, index.classes))
    trial, _ = try_run(
        config.model_copy(update={"teacher": config.teacher.model_copy(update={"pretrained": True})}),
        index,
        student,
        untrained_teacher(config, index).network,
    )
    assert trial.loss == pytest.approx(first["train/loss"], rel=1e-5)


@pytest.mark.parametrize(
    "overrides",
    [
        ("objective={kind: cross_entropy}", "augmentor={kind: identity}"),
        ("objective={kind: kd}", "augmentor={kind: identity}"),
        ("objective={kind: dkd}", "augmentor={kind: random_affine}"),
        ("objective={kind: function_matching}", "augmentor={kind: mixup}"),
        ("augmentor={kind: mix}",),
        ("objective={kind: kd}", "augmentor={kind: cutmix}"),
        ("objective={kind: kd}", "augmentor={kind: rand_augment}"),
        ("objective={kind: dad}", "augmentor={kind: adversarial, steps: 1}"),
        ("objective={kind: kd}", "augmentor={kind: pick, augmentor: {kind: cutmix}}"),
        ("optim.sched=multistep", "optim.warmup_epochs=1", "optim.opt=lamb", "optim.model_ema=true"),
        ("runtime.amp_dtype=bfloat16", "runtime.teacher.dtype=bfloat16"),
        ("runtime.amp_dtype=float16", "runtime.teacher.dtype=float16"),
        (
            "optim.opt=adamw",
            "optim.accumulate=32",
            "optim.layer_decay=0.9",
            "optim.clip_grad=0.1",
            "optim.clip_mode=agc",
        ),
        ("runtime.teacher.wire_dtype=float32",),
        ("runtime.num_workers=4",),
        ("data.augment={auto_augment: rand-m9-mstd0.5-inc1, reprob: 0.5, degrade: {}}",),
    ],
    ids=lambda given: " ".join(given)[:60],
)
def test_every_kind_of_run_can_be_tried(overrides: tuple[str, ...]):
    trial, lines = tried(tiny_config(*overrides))
    assert np.isfinite(trial.loss)
    assert len(lines) == 1


def test_the_training_of_a_teacher_is_tried_under_its_own_keys():
    run = teacher_run(tiny_config("teacher.recipe.batch_size=16"))
    trial, lines = tried(run, role="teacher")
    assert trial.images == 16
    assert "a teacher update of 16 images" in lines[0]


@pytest.mark.parametrize(
    ("overrides", "error", "words"),
    [
        (("teacher.recipe.batch_size=1300",), DataError, "teacher.recipe.batch_size 1300 is larger than the training"),
        (("optim.batch_size=1300",), DataError, "optim.batch_size 1300 is larger than the training split of 1297"),
        (("teacher.recipe.opt=adammm",), ModelError, "teacher.recipe.opt 'adammm' is no optimiser of timm"),
        (("optim.opt=adammm",), ModelError, "optim.opt 'adammm' is no optimiser of timm"),
        (
            ("teacher.recipe.opt_betas=[0.9]", "teacher.recipe.opt=sgd"),
            ModelError,
            "leave teacher.recipe.opt_betas out",
        ),
        (("student.grad_checkpointing=true",), ModelError, "leave student.grad_checkpointing out"),
        (("optim.lr=1e30",), ModelError, "the loss of the next student update is .*; lower optim.lr, give optim.clip"),
        (("teacher.recipe.lr=1e38", "teacher.recipe.opt=sgd"), ModelError, "lower teacher.recipe.lr"),
        (("student.model_kwargs={width: 3}",), ModelError, "student.model_kwargs"),
        (
            ("data.augment={auto_augment: rand-n20-tweights}",),
            DataError,
            r"data.augment \(auto_augment rand-n20-tweights\) cannot be applied to images of 16 pixels",
        ),
    ],
    ids=lambda given: given[0][:40] if isinstance(given, tuple) else None,
)
def test_what_a_run_would_fail_on_fails_by_its_key(overrides: tuple[str, ...], error: type[HardrayError], words: str):
    with pytest.raises(error, match=words) as caught:
        tried(tiny_config(*overrides))
    assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_network_that_cannot_take_the_size_is_named(role: str, tmp_path: Path):
    root = make_image_folder(tmp_path / "data")
    with pytest.raises(
        ModelError, match=f"{role}.model convnext_atto cannot take images of 3 x 16 x 16 .*set {role}.img_size="
    ):
        tried(on_folder(root, f"{role}.model=convnext_atto"))


def test_operations_that_grey_images_leave_out_are_said():
    keys = (
        "augmentor={kind: sequence, augmentors: [{kind: policy}, {kind: random_policy, max_hue: 0, max_saturation: 1}]}"
    )
    grey = load_config(preset="digits", overrides=[keys])
    assert augmentor_notes(grey) == [
        "policy: saturation and hue are left out, as they need 3 channels and data.in_chans is 1"
    ]
    assert augmentor_notes(load_config(preset="cifar10", overrides=[keys])) == []
    assert augmentor_notes(load_config(preset="digits")) == []


def test_what_batch_norm_sees_of_a_batch_in_parts_is_said_where_it_differs():
    cnn = ("student.model=hardray_cnn", "student.model_kwargs={widths: [4, 8]}")
    said = {}
    for name, keys in {"cnn": cnn, "frozen": (*cnn, "student.freeze_bn=true"), "mlp": ()}.items():
        config = tiny_config("optim.accumulate=3", *keys)
        said[name] = training_notes(config, examine(config)[1])
    assert "BatchNorm sees micro-batches of 10.7 images" in said["cnn"][0]
    assert said["frozen"] == said["mlp"] == training_notes(tiny_config(*cnn), examine(tiny_config(*cnn))[1]) == []
    with pytest.raises(
        ConfigError, match="16 images for each worker, which cannot be divided into optim.accumulate 17"
    ):
        tiny_config("optim.accumulate=17", "runtime.num_workers=2")


def test_a_mistake_in_a_teachers_training_is_named_by_the_recipe():
    with pytest.raises(DataError, match=r"teacher.recipe.batch_size 1298 is larger.* teacher.recipe.batch_size=1297"):
        tried(teacher_run(tiny_config("teacher.recipe.batch_size=1298")), role="teacher")


def test_a_batch_of_one_that_batch_norm_cannot_use_is_a_message(tmp_path: Path):
    """ResNet-18's last features of a 16-pixel image are one pixel, so that a batch of one has one value a channel."""
    root = make_image_folder(tmp_path / "data")
    config = on_folder(root, "student.model=resnet18", "optim.batch_size=1", *KD)
    with pytest.raises(ModelError, match=r"a student update of 1 images fails .*use a larger optim.batch_size"):
        tried(config)


def test_weights_whose_answers_are_not_finite_on_images_are_the_teachers(tmp_path: Path):
    root = make_image_folder(tmp_path / "data")
    weights = {k: v.clone() for k, v in timm.create_model("cifar_resnet8", num_classes=2).state_dict().items()}
    weights["conv1.weight"] *= 1e38  # black images stay finite
    save_file(weights, tmp_path / "t.safetensors")
    contract = ("teacher.mean=[0]", "teacher.std=[1]")
    config = on_folder(root, f"teacher.checkpoint={tmp_path / 't.safetensors'}", *contract, *KD)
    with pytest.raises(
        TeacherError, match=r"not finite for 8 of 8 images; want .* other weights as teacher.checkpoint"
    ):
        tried(config)


def spoil(root: Path, split: str, count: int) -> None:
    for path in sorted((root / split).rglob("*.png"))[:count]:
        path.write_bytes(b"no picture")


def test_a_split_whose_images_cannot_be_decoded_is_refused(tmp_path: Path):
    root = make_image_folder(tmp_path / "data")
    spoil(root, "val", 8)
    with pytest.raises(DataError, match=r"8 of 8 tried images of the val split cannot be decoded, first .*000.png \("):
        tried(on_folder(root))


def test_more_bad_images_than_are_allowed_are_refused_and_fewer_are_a_line(tmp_path: Path):
    root = make_image_folder(tmp_path / "data")
    spoil(root, "train", 1)
    with pytest.raises(DataError, match="1 images cannot be read, more than the 0 that data.max_bad_fraction allows"):
        tried(on_folder(root))
    _, lines = tried(on_folder(root, "data.max_bad_fraction=0.2"))
    assert "1 of 16 tried images of the train split cannot be decoded, first " in lines[1]


def test_the_first_and_the_last_image_of_a_split_are_tried(tmp_path: Path):
    root = make_image_folder(tmp_path / "data", per_class=30)
    last = sorted((root / "train/bee").iterdir())[-1]
    last.write_bytes(b"no picture")
    with pytest.raises(DataError, match="data.max_bad_fraction allows; repair or remove them, first .*029.png"):
        tried(on_folder(root))


def test_a_generated_set_that_lacks_images_of_the_run_is_refused(tmp_path: Path):
    from tests.security.fuzzed import generated_shard

    generated_shard(tmp_path)  # of three digits
    config = tiny_config("objective={kind: dad}", f"augmentor={{kind: generated, path: {tmp_path}}}")
    with pytest.raises(
        DataError, match="has no image for 1,29[0-9] of 1,297 training images, first .*; make them with"
    ):
        tried(config)


def test_an_image_of_one_pixel_and_a_thin_one_are_decoded(tmp_path: Path):
    root = make_image_folder(tmp_path / "data")
    Image.new("RGB", (1, 1)).save(root / "train/ant/000.png")
    Image.new("RGB", (900, 2)).save(root / "train/ant/001.png")
    _, lines = tried(on_folder(root))
    assert len(lines) == 1
