"""A student of the teacher's embedding: its loss, its phases against one-process autograd, and whole runs."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from hard_ray.augmentors.base import AugmentationInput, Augmentor
from hard_ray.config.controller import Phase
from hard_ray.config.loader import load_config
from hard_ray.config.networks import StudentConfig
from hard_ray.config.objective import EmbeddingObjective
from hard_ray.config.run import as_control
from hard_ray.data.batch import Batch
from hard_ray.data.sources.build import build_index
from hard_ray.distillation.embedding import EmbeddingAugmentorObjective, embedding_to_keep
from hard_ray.distillation.loop import Status
from hard_ray.distillation.objectives import StudentObjective, Views
from hard_ray.distillation.phases import Learner
from hard_ray.distillation.step import Updater
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool
from hard_ray.export.backbone import PROJECTION
from hard_ray.export.timm_folder import EvalView, write_timm_folder
from hard_ray.maths import losses
from hard_ray.maths.metrics import EmbeddingCounts
from hard_ray.maths.noise import normal
from hard_ray.networks import compilation
from hard_ray.networks.embedding import as_tower, build_projected
from hard_ray.networks.network import ImageSpec, InputContract, Network, build_student, image_spec
from hard_ray.networks.precision import Precision, resting
from hard_ray.preparation.checks import examine
from hard_ray.ranks import Ranks
from hard_ray.runs.log import read_points
from hard_ray.runs.snapshots import read_snapshot
from tests.augmentors.made import make
from tests.support.helpers import (
    TINY,
    assert_equal_bits,
    finished_run,
    killed_after,
    make_image_folder,
    run_here,
    student_weights,
    tiny_config,
)

SPEC = ImageSpec(28, 1, tuple("0123456789"))
DOUBLE = torch.float64


def embeddings(seed: int, rows: int = 5) -> torch.Tensor:
    return torch.randn(rows, 7, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def d(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """1 - cos, longhand."""
    values = []
    for a, b in zip(one, other, strict=True):
        dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
        lengths = [sum(float(x) ** 2 for x in vector) ** 0.5 for vector in (a, b)]
        values.append(1.0 - dot / (lengths[0] * lengths[1]))
    return torch.tensor(values, dtype=DOUBLE)


S, T, S2, T2 = (embeddings(seed) for seed in range(4))
LABELS = torch.zeros(5, dtype=torch.long)

# ------------------------------------------------------------------------ losses


def test_the_distance_is_one_minus_the_cosine_whatever_the_lengths():
    torch.testing.assert_close(losses.cosine_distance(S, T), d(S, T))
    torch.testing.assert_close(losses.cosine_distance(3.0 * S, 0.1 * T), d(S, T))
    torch.testing.assert_close(losses.cosine_distance(S, -S), torch.full((5,), 2.0, dtype=DOUBLE))


def test_equal_directions_have_distance_zero_and_no_gradient():
    student = T.clone().requires_grad_()
    found = losses.cosine_distance(T, student)
    assert torch.equal(found, torch.zeros_like(found))
    (grad,) = torch.autograd.grad(found.sum(), [student])
    assert torch.equal(grad, torch.zeros_like(grad))
    near = losses.cosine_distance(T.float(), 5.0 * T.float())
    assert (near >= 0).all()
    assert near.max() < 1e-12  # 1 - cos in float32 would be off by 1e-7


def test_the_gradient_of_the_distance_passes_gradcheck():
    pair = [S.clone().requires_grad_(), T.clone().requires_grad_()]
    assert torch.autograd.gradcheck(losses.cosine_distance, pair)
    context = {"student": S, "clean": T2}
    loss = EmbeddingAugmentorObjective(1.0, 0.3)
    assert torch.autograd.gradcheck(lambda teacher: loss(teacher, context), [T.clone().requires_grad_()])


def test_a_zero_vector_has_a_finite_distance():
    assert losses.cosine_distance(torch.zeros(1, 7), torch.ones(1, 7)).isfinite().all()


def test_embeddings_of_other_dimensions_are_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"got \(5, 7\) and \(5, 6\)"):
        losses.cosine_distance(S, T[:, :6])


def test_the_students_loss_is_the_weighted_distance_on_both_views_without_labels():
    objective = StudentObjective(EmbeddingObjective(w_clean=2.0, w_aug=3.0))
    found = objective(Views(LABELS, S, T, S2, T2), epoch=0.0)
    torch.testing.assert_close(found.total, 2 * d(T, S) + 3 * d(T2, S2))
    assert set(found.parts) == {"kd_loss", "disagreement", "drift"}
    torch.testing.assert_close(found.parts["drift"], d(T, T2))
    alone = objective(Views(LABELS, S, T), epoch=0.0)
    torch.testing.assert_close(alone.total, 2 * d(T, S))
    assert objective.accuracy(Views(LABELS, S, T)) == {}


def test_the_augmentors_loss_weighs_disagreement_against_drift():
    context = {"student": S2, "clean": T}
    found = EmbeddingAugmentorObjective(2.0, 0.5)(T2, context)
    torch.testing.assert_close(found, 0.5 * d(T, T2) - 2.0 * d(T2, S2))


def test_a_disagreement_beyond_the_cap_has_no_gradient():
    cap = float(d(T2, S2).median())
    teacher = T2.clone().requires_grad_()
    loss = EmbeddingAugmentorObjective(1.0, 0.0, cap=cap)(teacher, {"student": S2, "clean": T})
    torch.testing.assert_close(loss, -d(T2, S2).clamp(max=cap))
    (grad,) = torch.autograd.grad(loss.sum(), [teacher])
    assert torch.equal(grad.abs().sum(dim=1) == 0, d(T2, S2) > cap)


def test_a_mixed_image_keeps_the_mixture_of_the_directions():
    sources = torch.tensor([[0.7, 0.3, 0, 0, 0], [0, 0.4, 0, 0.6, 0]], dtype=DOUBLE)
    unit = torch.stack([row / row.square().sum().sqrt() for row in T])
    wanted = torch.stack([0.7 * unit[0] + 0.3 * unit[1], 0.4 * unit[1] + 0.6 * unit[3]])
    keep = embedding_to_keep(T, sources)
    found = EmbeddingAugmentorObjective(1.0, 1.0).drift(T2[:2], keep)
    torch.testing.assert_close(found, d(wanted, T2[:2]))
    # an image alone is its own anchor
    alone = EmbeddingAugmentorObjective(1.0, 1.0).drift(T2, embedding_to_keep(T, torch.eye(5, dtype=DOUBLE)))
    torch.testing.assert_close(alone, d(T, T2))


def test_counts_of_embeddings_add_up_to_the_mean_cosine():
    counts, other = EmbeddingCounts(), EmbeddingCounts()
    counts.add(S, LABELS, T)
    other.add(S2[:2], LABELS[:2], T2[:2])
    found = counts.plus(other).metrics(with_teacher=True)
    mean = float(torch.cat([d(S, T), d(S2[:2], T2[:2])]).mean())
    assert found.to_json() == {"n": 7, "loss": pytest.approx(mean), "cosine": pytest.approx(100 * (1 - mean))}
    assert found.score == found.cosine


# ------------------------------------------------------------------------ phases


def nets(dtype: torch.dtype = torch.float32) -> tuple[Network, Network]:
    torch.manual_seed(0)
    teacher = build_student(StudentConfig(model="hardray_cnn"), SPEC).to(dtype)
    for _ in range(20):  # BatchNorm averages that are those of real activations
        teacher.train()(torch.rand(8, 1, 28, 28, dtype=dtype))
    as_tower(teacher.float(), StudentConfig(model="hardray_cnn"), SPEC)
    student = build_projected(StudentConfig(model="hardray_mlp"), SPEC, 64)
    return teacher.to(dtype), student.to(dtype)


def batch(rows: int = 16) -> Batch:
    random = np.random.default_rng(0)
    pixels = np.zeros((rows, 1, 28, 28), dtype=np.uint8)
    for image in pixels:
        y, x = random.integers(6, 14, 2)
        image[0, y : y + 8, x : x + 6] = random.integers(100, 255)
    return Batch(pixels, random.integers(0, 10, rows), np.arange(rows), np.zeros(rows, dtype=np.int64))


class Float64Updater(Updater):
    """The same step on images in float64, to compare with an oracle beyond float32."""

    def _images(self, pixels):
        return super()._images(pixels).double()

    def _noise(self, given):
        return super()._noise(given).double()


def updater(
    teacher: nn.Module, student: nn.Module, augmentor: Augmentor, *, lr: float = 0.05, kind: type[Updater] = Updater
) -> Updater:
    learner = Learner(
        student=student,
        network=student,
        optimizer=torch.optim.SGD(student.parameters(), lr=lr),
        augmentor=augmentor,
        augmentor_optimizer=torch.optim.AdamW(augmentor.parameters(), lr=1e-2),
    )
    return kind(
        learner,
        StudentObjective(EmbeddingObjective()),
        pool=LocalPool(FrozenNetwork(teacher)),
        precision=Precision(torch.device("cpu")),
        ranks=Ranks(),
        seed=0,
        augmentation=EmbeddingAugmentorObjective(1.0, 0.3),
    )


def longhand(teacher: nn.Module, student: nn.Module, augmentor: Augmentor, given: AugmentationInput) -> torch.Tensor:
    """The augmentor's loss in one process and with one autograd graph."""

    def unit(vectors: torch.Tensor) -> torch.Tensor:
        return vectors / vectors.square().sum(dim=1, keepdim=True).sqrt()

    view = augmentor.augment(given)
    t, s, clean = unit(teacher(view.images)), unit(student(view.images)), unit(teacher(given.images)).detach()
    kept = clean if view.sources is None else unit(view.sources @ clean)
    return (0.3 * (1 - (kept * t).sum(dim=1)) - (1 - (t * s).sum(dim=1))).mean()


Loss = Callable[[nn.Module, nn.Module, Augmentor, AugmentationInput], torch.Tensor]


def assert_gradients_of(loss: Loss, made: Updater, teacher: nn.Module, student: nn.Module) -> None:
    """An augmentor update steps with the gradients of this loss in float64."""
    augmentor = made.learner.augmentor
    captured: dict[str, torch.Tensor] = {}
    made.learner.augmentor_optimizer.step = lambda: captured.update(
        {name: parameter.grad.clone() for name, parameter in augmentor.named_parameters()}
    )
    prepared = made.prepare(batch(), second_view=False)
    made.update(prepared, Phase.AUGMENTOR, step=0, epoch=0.0)
    total = loss(teacher.eval(), student.eval(), augmentor, prepared.given)
    for (name, _), grad in zip(
        augmentor.named_parameters(), torch.autograd.grad(total, list(augmentor.parameters())), strict=True
    ):
        scale = grad.abs().max()
        assert scale > 0
        assert (captured[name] - grad).abs().max() <= 1e-7 * scale, name


@pytest.mark.parametrize("kind", ["affine", "mix"])
def test_the_augmentors_gradient_on_embeddings_equals_one_process_autograd_in_float64(kind: str):
    teacher, student = nets(DOUBLE)
    augmentor = make(kind, img_size=28).double()
    made = updater(teacher, student, augmentor, kind=Float64Updater)
    assert_gradients_of(longhand, made, teacher, student)


def measured(loss: Loss, teacher: nn.Module, student: nn.Module, augmentor: Augmentor) -> float:
    """The augmentor's loss on the batch, in evaluation mode."""
    given = batch()
    images = torch.tensor(given.images).float() / 255
    noise = normal("augmentor", seed=0, epochs=given.epochs, sample_ids=given.sample_ids, count=augmentor.noise_dim)
    with torch.no_grad(), resting(teacher), resting(student):
        return float(loss(teacher, student, augmentor, AugmentationInput(images, torch.from_numpy(noise))))


def test_augmentor_updates_raise_the_disagreement_of_embeddings_and_leave_the_student_alone():
    teacher, student = nets()
    augmentor = make("affine", img_size=28)
    made = updater(teacher, student, augmentor, lr=0.2)
    for step in range(30):  # a student that agrees: an untrained one is as far from the teacher everywhere
        made.update(made.prepare(batch(), second_view=True), Phase.STUDENT, step=step, epoch=0.0)
    made.learner.optimizer.zero_grad()
    before, start = copy.deepcopy(student.state_dict()), measured(longhand, teacher, student, augmentor)
    for step in range(20):
        made.update(made.prepare(batch(), second_view=False), Phase.AUGMENTOR, step=step, epoch=0.0)
    assert measured(longhand, teacher, student, augmentor) < 1.5 * start < 0  # it minimises the negative
    assert_equal_bits(student.state_dict(), before)


def test_student_updates_lower_the_disagreement_of_embeddings_and_leave_the_augmentor_alone():
    teacher, student = nets()
    augmentor = make("affine", img_size=28)
    made = updater(teacher, student, augmentor, lr=0.2)
    before, found = copy.deepcopy(augmentor.state_dict()), []
    for step in range(30):
        metrics = made.update(made.prepare(batch(), second_view=True), Phase.STUDENT, step=step, epoch=0.0)
        found.append(float(metrics["train/disagreement"]))
    assert found[-1] < 0.5 * found[0]
    assert not {"train/top1", "train/ce_loss", "train/agreement", "augmentor/t_stddev"} & metrics.keys()
    assert_equal_bits(augmentor.state_dict(), before)


# -------------------------------------------------------------------------- runs

EMBEDDING = ("objective.kind=embedding", "optim.lr=0.2", "optim.steps=40", "validate.suites=[clean, shifted]")


def tower_pool(*overrides: str) -> LocalPool:
    """A teacher whose weights are a function of the seed alone, without its head."""
    config = tiny_config(*EMBEDDING, *overrides)
    torch.manual_seed(0)
    images = image_spec(config.data, build_index(config.data).classes)
    teacher = build_student(config.teacher, images, role="teacher")
    for _ in range(20):
        teacher.train()(torch.rand(8, 1, 16, 16))
    return LocalPool(FrozenNetwork(as_tower(teacher, config.teacher, images)))


def points(folder: Path, kind: str) -> list[dict]:
    return [point for _, point in read_points(folder / "metrics.jsonl") if point["kind"] == kind]


def exported(folder: Path) -> dict[str, torch.Tensor]:
    return student_weights(folder) | {
        f"projection.{k}": v for k, v in load_file(folder / "student" / PROJECTION).items()
    }


def test_the_cosine_rises_and_nothing_of_classes_is_logged(tmp_path: Path):
    config = tiny_config(*EMBEDDING, "validate.every=0.25", "tracking.gallery_images=3")
    assert run_here(config, tmp_path / "run", tower_pool()) is Status.FINISHED
    values = points(tmp_path / "run", "val")
    assert values[-1]["val/cosine"] > values[0]["val/cosine"] + 1.0
    assert values[-1]["val/shifted/cosine"] > values[0]["val/shifted/cosine"]
    assert values[-1]["val/loss"] == pytest.approx(1 - values[-1]["val/cosine"] / 100)
    text = (tmp_path / "run/metrics.jsonl").read_text() + (tmp_path / "run/evaluation.json").read_text()
    of_classes = ("top1", '/agreement"', '"agreement"', "ece", "nan", "NaN", "t_stddev")
    assert not [word for word in of_classes if word in text]
    outcome = json.loads((tmp_path / "run/outcome.json").read_text())
    assert outcome["best_cosine"] == max(point["val/cosine"] for point in values)
    assert outcome["steps"]["augmentor"] > 0
    snapshot = read_snapshot(max((tmp_path / "run/gallery").glob("*.npz")))
    assert snapshot.augmented.cosine.shape == (3,)
    assert snapshot.augmented.teacher is None


def test_a_killed_run_of_an_embedding_resumes_to_the_same_bits(tmp_path: Path):
    config = tiny_config(*EMBEDDING, "optim.model_ema=true")
    run_here(config, tmp_path / "straight", tower_pool())
    with killed_after(21):
        run_here(config, tmp_path / "killed", tower_pool())
    run_here(config, tmp_path / "killed", tower_pool())
    assert_equal_bits(exported(tmp_path / "straight"), exported(tmp_path / "killed"))


@pytest.mark.parametrize(
    "more",
    [
        ("augmentor={kind: mix}",),
        ("augmentor={kind: cutmix}",),
        ("augmentor={kind: sequence, augmentors: [{kind: affine}, {kind: mix}]}",),
        ("augmentor={kind: identity}", "data.mix.mixup=0.8"),
        ("augmentor={kind: affine}", "student.model=hardray_cnn", "optim.accumulate=2"),
        ("augmentor={kind: affine}", "student.model=vit_tiny_patch16_224", "optim.layer_decay=0.7"),
    ],
    ids=" ".join,
)
def test_other_views_and_students_learn_an_embedding(tmp_path: Path, more: tuple[str, ...]):
    tiny = [each for each in TINY if not each.startswith(("augmentor.", "student.model_kwargs"))]
    config = load_config(preset="digits", overrides=[*tiny, *EMBEDDING, "optim.steps=4", *more])
    assert run_here(config, tmp_path / "run", tower_pool()) is Status.FINISHED
    last = points(tmp_path / "run", "val")[-1]
    assert last["val/loss"] == pytest.approx(1 - last["val/cosine"] / 100)


def test_the_controls_learn_the_embedding_without_what_is_learned():
    config = tiny_config(*EMBEDDING, "objective.w_clean=0.5", "experiment.controls=[kd, random]")
    kd, random = (as_control(config, name) for name in ("kd", "random"))
    assert kd.objective == random.objective == EmbeddingObjective()
    assert (kd.augmentor.kind, random.augmentor.kind) == ("identity", "random_affine")


def test_a_summary_compares_models_by_cosine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = tiny_config(*EMBEDDING, "optim.steps=10")
    monkeypatch.setattr("tests.support.helpers.untrained_teacher", lambda *_: tower_pool().teacher)
    summary = json.loads(finished_run(config, tmp_path / "run").summary.read_text())
    assert summary["measure"] == "cosine"
    assert summary["models"].keys() == {"student"}
    assert summary["models"]["student"].keys() == {"clean", "shifted"}


def test_images_without_labels_teach_an_embedding_by_a_tower_without_classes(tmp_path: Path):
    images = make_image_folder(tmp_path / "images", per_class=20)
    spec = ImageSpec(16, 3, ())
    torch.manual_seed(0)
    made = StudentConfig(model="cifar_resnet8")
    tower = Network(
        timm.create_model(made.model, num_classes=0), InputContract((0.5,) * 3, (0.2,) * 3, None, "bicubic")
    )
    for _ in range(5):
        tower.train()(torch.rand(8, 3, 16, 16))
    write_timm_folder(tower, tmp_path / "tower", images=spec, names=None, view=EvalView(), card="a tower")
    tiny = [each for each in TINY if not each.startswith(("augmentor.", "student.", "teacher.", "data."))]
    own = [
        f"data={{kind: images, path: {images}, img_size: 16, in_chans: 3}}",
        f"teacher.model=local-dir:{tmp_path / 'tower'}",
        "student.model=cifar_resnet8",
        "optim={steps: 6, batch_size: 8}",
    ]
    config = load_config(preset="digits", overrides=[*tiny, *own, "objective.kind=embedding"])
    index, student, teacher = examine(config)
    assert (index.classes, student.dimension) == ((), 64)
    pool = LocalPool(FrozenNetwork(teacher))
    assert run_here(config, tmp_path / "run", pool) is Status.FINISHED
    found = json.loads((tmp_path / "run/evaluation.json").read_text())["suites"]["clean"]
    assert found.keys() == {"n", "loss", "cosine"}


def test_a_compiled_student_and_tower_learn_an_embedding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compilation, "BACKEND", "aot_eager")  # graphs without a compiler of machine code
    compilation.forget_graphs()
    config = tiny_config(*EMBEDDING, "optim.steps=6", "runtime.compile=true", "optim.model_ema=true")
    pool = tower_pool()
    pool.teacher.compile("default", (32,), 16)
    assert run_here(config, tmp_path / "run", pool) is Status.FINISHED
    assert json.loads((tmp_path / "run/outcome.json").read_text())["compiled"]["repeated"] == 0
    run_here(tiny_config(*EMBEDDING, "optim.steps=6", "optim.model_ema=true"), tmp_path / "plain", tower_pool())
    found, plain = exported(tmp_path / "run"), exported(tmp_path / "plain")
    assert all(torch.allclose(found[name], plain[name], atol=1e-3) for name in plain)
