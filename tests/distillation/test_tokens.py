"""Tokens beside an embedding: both phases against one-process autograd, and whole runs."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from hard_ray.augmentors.base import AugmentationInput, Augmentor
from hard_ray.config.controller import Phase
from hard_ray.config.loader import load_config
from hard_ray.config.networks import StudentConfig
from hard_ray.config.objective import EmbeddingObjective
from hard_ray.config.run import as_control
from hard_ray.data.sources.build import build_index
from hard_ray.distillation.assembly import distance_of
from hard_ray.distillation.embedding import EmbeddingAugmentorObjective
from hard_ray.distillation.loop import Status
from hard_ray.distillation.objectives import StudentObjective
from hard_ray.distillation.phases import Learner
from hard_ray.distillation.step import Updater
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool
from hard_ray.errors import ModelError
from hard_ray.networks.embedding import as_tower, build_projected
from hard_ray.networks.network import ImageSpec, Network, build_student, image_spec
from hard_ray.networks.precision import Precision
from hard_ray.preparation.checks import examine
from hard_ray.preparation.trial import try_run
from hard_ray.ranks import Ranks
from hard_ray.runs.snapshots import read_snapshot
from tests.augmentors.made import make
from tests.distillation.test_embedding import Float64Updater, assert_gradients_of, batch, exported, measured, points
from tests.support.helpers import TINY, assert_equal_bits, killed_after, run_here

SPEC = ImageSpec(28, 1, tuple("0123456789"))
DOUBLE = torch.float64
WEIGHT = 2.0
VIT = {"depth": 2, "embed_dim": 24, "num_heads": 2, "patch_size": 7}
STUDENTS = [("hardray_cnn", {"widths": (8, 16)}), ("vit_tiny_patch16_224", VIT)]

# ------------------------------------------------------------------------ phases


def nets(model: str, more: dict, dtype: torch.dtype = torch.float32) -> tuple[Network, Network]:
    """A teacher with 7 x 7 tokens, and a student with 14 x 14 or 4 x 4."""
    torch.manual_seed(0)
    config = StudentConfig(model="hardray_cnn", model_kwargs={"widths": (8, 8, 12)})
    teacher = build_student(config, SPEC)
    for _ in range(20):  # BatchNorm averages that are those of real activations
        teacher.train()(torch.rand(8, 1, 28, 28))
    layout = as_tower(teacher, config, SPEC, with_tokens=True).tokens.layout
    student = build_projected(StudentConfig(model=model, model_kwargs=more), SPEC, layout.dimension, layout=layout)
    return teacher.to(dtype), student.to(dtype)


def updater(
    teacher: nn.Module, student: nn.Module, augmentor: Augmentor, *, lr: float = 0.05, kind: type[Updater] = Updater
) -> Updater:
    objective = EmbeddingObjective(w_tokens=WEIGHT)
    distance = distance_of(objective, student)
    assert distance.w_tokens == WEIGHT
    learner = Learner(
        student=student,
        network=student,
        optimizer=torch.optim.SGD(student.parameters(), lr=lr, momentum=0.9),
        augmentor=augmentor,
        augmentor_optimizer=torch.optim.AdamW(augmentor.parameters(), lr=1e-2),
    )
    return kind(
        learner,
        StudentObjective(objective, distance=distance),
        pool=LocalPool(FrozenNetwork(teacher)),
        precision=Precision(torch.device("cpu")),
        ranks=Ranks(),
        seed=0,
        augmentation=EmbeddingAugmentorObjective(1.0, 0.3, distance=distance),
    )


def d(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """1 - cos of the first 12 values, and the weighted Smooth-L1 distance of the others."""
    far = (one[:, 12:] - other[:, 12:]).abs()
    tokens = torch.where(far < 2, far**2 / 4, far - 1).mean(dim=1)
    return 1 - torch.cosine_similarity(one[:, :12], other[:, :12]) + WEIGHT * tokens


def longhand(teacher: nn.Module, student: nn.Module, augmentor: Augmentor, given: AugmentationInput) -> torch.Tensor:
    """The augmentor's loss in one process and with one autograd graph."""
    view = augmentor.augment(given)
    t, s, clean = teacher(view.images), student(view.images), teacher(given.images).detach()
    if view.sources is not None:
        lengths = clean[:, :12].square().sum(dim=1, keepdim=True).sqrt()
        clean = view.sources @ torch.cat([clean[:, :12] / lengths, clean[:, 12:]], dim=1)
    return (0.3 * d(clean, t) - d(t, s)).mean()


@pytest.mark.parametrize("kind", ["affine", "mix"])
def test_the_augmentors_gradient_with_tokens_equals_one_process_autograd_in_float64(kind: str):
    teacher, student = nets(*STUDENTS[0], DOUBLE)
    augmentor = make(kind, img_size=28).double()
    made = updater(teacher, student, augmentor, kind=Float64Updater)
    assert_gradients_of(longhand, made, teacher, student)


@pytest.mark.parametrize(("model", "more"), STUDENTS)
def test_student_updates_lower_the_distance_with_tokens_and_augmentor_updates_raise_it(model: str, more: dict):
    teacher, student = nets(model, more)
    augmentor = make("affine", img_size=28)
    made = updater(teacher, student, augmentor)
    before, found = copy.deepcopy(augmentor.state_dict()), []
    for step in range(40):
        metrics = made.update(made.prepare(batch(), second_view=True), Phase.STUDENT, step=step, epoch=0.0)
        found.append([float(metrics[f"train/{name}"]) for name in ("disagreement", "token_loss")])
    assert all(last < 0.75 * first for first, last in zip(found[0], found[-1], strict=True)), found
    assert_equal_bits(augmentor.state_dict(), before)
    made.learner.optimizer.zero_grad()
    kept, start = copy.deepcopy(student.state_dict()), measured(longhand, teacher, student, augmentor)
    for step in range(20):
        made.update(made.prepare(batch(), second_view=False), Phase.AUGMENTOR, step=step, epoch=0.0)
    assert measured(longhand, teacher, student, augmentor) < start < 0  # it minimises the negative
    assert_equal_bits(student.state_dict(), kept)


# -------------------------------------------------------------------------- runs

TOKENS = (
    *(each for each in TINY if not each.startswith("student.")),
    "objective.kind=embedding",
    "objective.w_tokens=0.5",
    "optim.lr=0.1",
    "student.model=hardray_cnn",
    "student.model_kwargs={widths: [4, 6, 8]}",  # 4 x 4 positions, beside the teacher's 8 x 8
)


def token_config(*overrides: str):
    return load_config(preset="digits", overrides=[*TOKENS, *overrides])


def token_pool() -> LocalPool:
    """A teacher whose weights are a function of the seed alone, with 8 x 8 tokens of 8 values."""
    config = token_config()
    torch.manual_seed(0)
    images = image_spec(config.data, build_index(config.data).classes)
    teacher = build_student(config.teacher, images, role="teacher")
    for _ in range(20):
        teacher.train()(torch.rand(8, 1, 16, 16))
    return LocalPool(FrozenNetwork(as_tower(teacher, config.teacher, images, with_tokens=True)))


def test_a_run_lowers_the_loss_with_tokens_and_reports_the_cosine_of_embeddings(tmp_path: Path):
    config = token_config("optim.steps=40", "validate.every=0.25", "tracking.gallery_images=3")
    assert run_here(config, tmp_path / "run", token_pool()) is Status.FINISHED
    values = points(tmp_path / "run", "val")
    assert values[-1]["val/cosine"] > values[0]["val/cosine"]
    assert values[-1]["val/loss"] < values[0]["val/loss"]
    assert all(each["val/loss"] > 1 - each["val/cosine"] / 100 + 0.01 for each in values)
    trained = [each for each in points(tmp_path / "run", "train") if "train/token_loss" in each]
    assert trained[-1]["train/token_loss"] < trained[0]["train/token_loss"]
    assert json.loads((tmp_path / "run/outcome.json").read_text())["teacher_identity"].endswith("-tokens8+8x8x8")
    snapshot = read_snapshot(max((tmp_path / "run/gallery").glob("*.npz")))
    assert snapshot.augmented.cosine.shape == (3,)
    assert (abs(snapshot.augmented.cosine) <= 1).all()


def test_a_killed_run_with_tokens_resumes_to_the_same_bits(tmp_path: Path):
    config = token_config("optim.steps=24", "optim.model_ema=true")
    run_here(config, tmp_path / "straight", token_pool())
    with killed_after(13):
        run_here(config, tmp_path / "killed", token_pool())
    run_here(config, tmp_path / "killed", token_pool())
    straight = exported(tmp_path / "straight")
    assert straight["projection.tokens.weight"].shape == (8, 8)
    assert_equal_bits(straight, exported(tmp_path / "killed"))


@pytest.mark.parametrize(
    "more",
    [
        ("augmentor={kind: mix}",),
        ("augmentor={kind: identity}", "data.mix.mixup=0.8"),
        (
            "augmentor={kind: affine}",
            "student.model=vit_tiny_patch16_224",
            f"student.model_kwargs={VIT | {'patch_size': 4}}",
            "student.grad_checkpointing=true",
            "optim.layer_decay=0.7",
            "optim.accumulate=2",
        ),
    ],
    ids=["mix", "mixup", "vit"],
)
def test_other_views_and_students_learn_tokens(tmp_path: Path, more: tuple[str, ...]):
    tokens = [each for each in TOKENS if not each.startswith("augmentor.")]
    if "vit" in str(more):
        tokens = [each for each in tokens if not each.startswith("student.model_kwargs")]
    config = load_config(preset="digits", overrides=[*tokens, "optim.steps=3", *more])
    assert run_here(config, tmp_path / "run", token_pool()) is Status.FINISHED
    assert "projection.tokens.bias" in exported(tmp_path / "run")


def test_a_dry_run_builds_both_networks_and_tries_their_updates():
    config = token_config()
    index, student, teacher = examine(config)
    assert student.tokens.layout.size == 8 + 64 * 8
    trial, _ = try_run(config, index, student, teacher)
    assert trial.loss > 0
    assert trial.augmentor_loss is not None


def test_a_student_without_positions_is_refused_before_anything_starts():
    overrides = [each for each in TOKENS if not each.startswith("student.")]
    with pytest.raises(ModelError, match=r"student\.model hardray_mlp .* which have no positions"):
        examine(load_config(preset="digits", overrides=overrides))


def test_the_controls_learn_the_tokens_that_the_one_teacher_answers_with():
    config = token_config("objective.w_clean=0.5", "experiment.controls=[kd, random]")
    for name in config.experiment.controls:
        assert as_control(config, name).objective == EmbeddingObjective(w_tokens=0.5)
