"""The two-phase step against one-process autograd, and the effect of each phase."""

import copy
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from hard_ray.augmentors.affine import Affine
from hard_ray.augmentors.base import AugmentationInput, Augmentor
from hard_ray.config.augmentor import AffineAugmentor
from hard_ray.config.controller import Phase
from hard_ray.config.loader import load_config
from hard_ray.config.networks import StudentConfig
from hard_ray.config.objective import HardObjective, KdObjective
from hard_ray.config.runtime import Dtype
from hard_ray.data.batch import Batch
from hard_ray.distillation.loop import Status
from hard_ray.distillation.objectives import AugmentorObjective, StudentObjective
from hard_ray.distillation.phases import Learner
from hard_ray.distillation.step import Updater
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool
from hard_ray.files import read_json
from hard_ray.maths.noise import normal
from hard_ray.networks.network import ImageSpec, build_student
from hard_ray.networks.precision import DTYPES, Precision, resting
from hard_ray.ranks import Ranks
from tests.augmentors.made import KINDS, make
from tests.networks.saved import save
from tests.support.helpers import TINY, assert_equal_bits, run_here, student_weights, tiny_config

SPEC = ImageSpec(28, 1, tuple("0123456789"))
HARD = AugmentorObjective(4.0, 1.0, 0.3)


def batch(rows: int = 16) -> Batch:
    random = np.random.default_rng(0)
    smooth = np.zeros((rows, 1, 28, 28), dtype=np.uint8)
    for image in smooth:
        y, x = random.integers(6, 14, 2)
        image[0, y : y + 8, x : x + 6] = random.integers(100, 255)
    ids = np.arange(rows)
    return Batch(smooth, random.integers(0, 10, rows), ids, np.zeros(rows, dtype=np.int64))


def nets(dtype: torch.dtype = torch.float32) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    teacher = build_student(StudentConfig(model="hardray_cnn"), SPEC).to(dtype)
    for _ in range(20):  # BatchNorm averages that are those of real activations
        teacher.train()(torch.rand(8, 1, 28, 28, dtype=dtype))
    with torch.no_grad():
        teacher.model.head.weight.mul_(40.0)  # a teacher with opinions
    student = build_student(StudentConfig(model="hardray_mlp"), SPEC).to(dtype)
    return teacher, student


def updater(
    teacher: nn.Module,
    student: nn.Module,
    *,
    augmentor: Augmentor | None,
    objective: object = HardObjective(),
    lr: float = 0.01,
    round_pixels: bool = True,
) -> Updater:
    learner = Learner(
        student=student,
        network=student,
        optimizer=torch.optim.SGD(student.parameters(), lr=lr),
        augmentor=augmentor,
        augmentor_optimizer=torch.optim.AdamW(augmentor.parameters(), lr=1e-2) if augmentor else None,
    )
    return Updater(
        learner,
        StudentObjective(objective),
        pool=LocalPool(FrozenNetwork(teacher)),
        precision=Precision(torch.device("cpu")),
        ranks=Ranks(),
        seed=0,
        augmentation=HARD,
        round_pixels=round_pixels,
    )


def affine(dtype: torch.dtype = torch.float32, **config: object) -> Affine:
    torch.manual_seed(1)
    return Affine(AffineAugmentor(noise_dim=8, hidden_dim=16, **config)).to(dtype)


def test_a_student_of_augmented_images_alone_has_an_augmentor_that_learns():
    teacher, student = nets()
    made = updater(teacher, student, augmentor=affine(), objective=HardObjective(w_clean=0.0))
    before = [parameter.clone() for parameter in made.learner.augmentor.parameters()]
    learned = made.update(made.prepare(batch(), second_view=False), Phase.AUGMENTOR, step=0, epoch=0.0)
    assert float(learned["train/drift"]) > 0
    assert any(not torch.equal(*pair) for pair in zip(before, made.learner.augmentor.parameters(), strict=True))
    metrics = made.update(made.prepare(batch(), second_view=True), Phase.STUDENT, step=1, epoch=0.0)
    assert "train/kd_loss" not in metrics
    torch.testing.assert_close(metrics["train/loss"], metrics["train/disagreement"])


class Float64Updater(Updater):
    """The same step on images in float64, to compare with an oracle beyond float32."""

    def _images(self, pixels):
        return super()._images(pixels).double()

    def _noise(self, batch):
        return super()._noise(batch).double()


def hard_loss(teacher: nn.Module, student: nn.Module, augmentor: Augmentor, given: AugmentationInput) -> torch.Tensor:
    """The augmentor's loss, longhand, in one process and with one autograd graph."""
    view = augmentor.augment(given)
    log_t, log_s = ((net(view.images) / 4).log_softmax(dim=1) for net in (teacher, student))
    disagreement = 16 * (log_t.exp() * (log_t - log_s)).sum(dim=1)
    clean = (teacher(given.images) / 4).softmax(dim=1).detach()
    kept = clean if view.sources is None else view.sources @ clean
    drift = 16 * (kept * (kept.log() - log_t)).sum(dim=1)
    loss = (0.3 * drift - disagreement).mean()
    return loss if view.prior is None else loss + view.prior


@pytest.mark.parametrize("kind", KINDS)
def test_the_augmentors_gradient_equals_one_process_autograd_in_float64(kind: str):
    teacher, student = nets(torch.float64)
    augmentor = make(kind, img_size=28).double()
    made = updater(teacher, student, augmentor=augmentor)
    made.__class__ = Float64Updater
    captured: dict[str, torch.Tensor] = {}
    made.learner.augmentor_optimizer.step = lambda: captured.update(
        {name: parameter.grad.clone() for name, parameter in augmentor.named_parameters()}
    )
    prepared = made.prepare(batch(), second_view=False)
    made.update(prepared, Phase.AUGMENTOR, step=0, epoch=0.0)

    teacher.eval()
    student.eval()
    loss = hard_loss(teacher, student, augmentor, prepared.given)
    expected = torch.autograd.grad(loss, list(augmentor.parameters()))
    assert made.learner.augmentor.parameter_groups()
    for (name, _), grad in zip(augmentor.named_parameters(), expected, strict=True):
        scale = grad.abs().max()
        assert scale > 0
        assert (captured[name] - grad).abs().max() <= 1e-10 * scale, name


@pytest.mark.parametrize("kind", ["affine", "mix"])
def test_an_augmentor_update_on_a_part_of_the_batch_is_that_of_its_first_images(kind: str):
    found, whole = [], batch(rows=15)
    first = Batch(whole.images[:4], whole.labels[:4], whole.sample_ids[:4], whole.epochs[:4])
    for part, given in ((0.22, whole), (1.0, first)):
        teacher, student = nets(torch.float64)
        augmentor = make(kind, img_size=28).double()
        made = updater(teacher, student, augmentor=augmentor)
        made.__class__, made.augmentor_part = Float64Updater, part
        asked = []
        made.pool.loss_and_grad = lambda images, *rest, ask=made.pool.loss_and_grad, asked=asked: (
            asked.append(len(images)),
            ask(images, *rest),
        )[1]
        metrics = made.update(made.prepare(given, second_view=False), Phase.AUGMENTOR, step=0, epoch=0.0)
        assert asked == [4]
        found.append((metrics, augmentor.state_dict()))
    (metrics, state), (expected, expected_state) = found
    for made, wanted in ((metrics, expected), (state, expected_state)):
        assert made.keys() == wanted.keys()
        for name, value in wanted.items():
            torch.testing.assert_close(made[name], value, rtol=1e-5, atol=1e-9, msg=name)


def disagreement(teacher: nn.Module, student: nn.Module, augmentor: Augmentor, given: Batch) -> torch.Tensor:
    images = torch.tensor(given.images).float() / 255
    noise = torch.from_numpy(
        normal("augmentor", seed=0, epochs=given.epochs, sample_ids=given.sample_ids, count=augmentor.noise_dim)
    )
    with torch.no_grad(), resting(teacher), resting(student):
        return hard_loss(teacher, student, augmentor, AugmentationInput(images, noise))


@pytest.mark.parametrize("kind", KINDS)
def test_augmentor_updates_raise_what_the_augmentor_seeks_and_leave_the_student_alone(kind: str):
    teacher, student = nets()
    augmentor = make(kind, img_size=28)
    made = updater(teacher, student, augmentor=augmentor)
    before = copy.deepcopy(student.state_dict())
    start = disagreement(teacher, student, augmentor, batch())
    for step in range(20):
        prepared = made.prepare(batch(), second_view=False)
        made.update(prepared, Phase.AUGMENTOR, step=step, epoch=0.0)
    assert disagreement(teacher, student, augmentor, batch()) < 1.01 * start < 0  # it minimises the negative
    assert student.training
    for key, value in student.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert all(parameter.grad is None for parameter in student.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_student_updates_lower_the_disagreement_and_leave_the_augmentor_alone(kind: str):
    teacher, student = nets()
    augmentor = make(kind, img_size=28)
    made = updater(teacher, student, augmentor=augmentor, lr=0.02)
    before = copy.deepcopy(augmentor.state_dict())
    measured = []
    for step in range(30):
        prepared = made.prepare(batch(), second_view=True)
        measured.append(made.update(prepared, Phase.STUDENT, step=step, epoch=0.0)["train/disagreement"].item())
    assert measured[-1] < 0.7 * measured[0]
    for key, value in augmentor.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_asking_ahead_changes_no_bit():
    results = []
    for ahead in (True, False):
        teacher, student = nets()
        made = updater(teacher, student, augmentor=affine())
        for step in range(4):
            prepared = made.prepare(batch(), second_view=ahead)
            assert (prepared.augmented is not None) == ahead
            made.update(prepared, Phase.STUDENT, step=step, epoch=0.0)
        results.append(student.state_dict())
    for key, value in results[0].items():
        assert torch.equal(value, results[1][key]), key


def test_the_student_trains_on_the_pixels_that_the_teacher_saw():
    teacher, student = nets()
    seen: dict[str, torch.Tensor] = {}

    class Watching(LocalPool):
        def logits(self, images):
            if images.dtype == np.uint8:
                seen["last"] = torch.tensor(images).float() / 255
            return super().logits(images)

    made = updater(teacher, student, augmentor=affine())
    made.pool = Watching(FrozenNetwork(teacher))
    prepared = made.prepare(batch(), second_view=True)
    assert torch.equal(prepared.augmented.images, seen["last"])
    assert not torch.equal(prepared.augmented.images, prepared.images)


class TakingTensors(LocalPool):
    """A pool of the same device, on a CPU."""

    takes_tensors = True

    def __init__(self, teacher: FrozenNetwork) -> None:
        super().__init__(teacher)
        self.asked: list[object] = []

    def logits(self, images):
        self.asked.append(images)
        return super().logits(images)

    def loss_and_grad(self, images, objective, context):
        self.asked.append(images)
        return super().loss_and_grad(images, objective, context)


@pytest.mark.parametrize("round_pixels", [True, False])
def test_a_pool_of_the_same_device_is_handed_tensors_and_the_bits_are_the_same(round_pixels: bool):
    weights = []
    for pool in (LocalPool, TakingTensors):
        teacher, student = nets()
        made = updater(teacher, student, augmentor=affine(), round_pixels=round_pixels)
        made.pool = pool(FrozenNetwork(teacher))
        for step, phase in enumerate((Phase.STUDENT, Phase.AUGMENTOR, Phase.STUDENT)):
            prepared = made.prepare(batch(), second_view=phase is Phase.STUDENT)
            made.update(prepared, phase, step=step, epoch=0.0)
        weights.append({**student.state_dict(), **made.learner.augmentor.state_dict()})
    assert [type(images) for images in made.pool.asked] == [torch.Tensor] * 6
    assert torch.equal(made.pool.asked[0], torch.tensor(batch().images))  # the batch's own bytes
    assert_equal_bits(*weights)


def test_strength_zero_asks_the_teacher_once_and_weighs_the_clean_view_twice():
    teacher, student = nets()
    asked = []

    class Counting(LocalPool):
        def logits(self, images):
            asked.append(len(images))
            return super().logits(images)

    made = updater(teacher, student, augmentor=affine(strength=0.0))
    made.pool = Counting(FrozenNetwork(teacher))
    prepared = made.prepare(batch(), second_view=True)
    assert prepared.augmented.images is prepared.images
    metrics = made.update(prepared, Phase.STUDENT, step=0, epoch=0.0)
    assert asked == [16]
    assert metrics["train/loss"].item() == pytest.approx(2 * metrics["train/kd_loss"].item(), rel=1e-6)


def test_kd_without_an_augmentor_is_plain_kd():
    teacher, student = nets()
    made = updater(teacher, student, augmentor=None, objective=KdObjective(alpha=0.9))
    prepared = made.prepare(batch(), second_view=True)
    metrics = made.update(prepared, Phase.STUDENT, step=0, epoch=0.0)
    expected = 0.1 * metrics["train/ce_loss"] + 0.9 * metrics["train/kd_loss"]
    torch.testing.assert_close(metrics["train/loss"], expected)
    assert "train/disagreement" not in metrics


def test_dropout_is_a_function_of_seed_and_step():
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        student = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(784, 10))
        teacher, _ = nets()
        made = updater(teacher, student, augmentor=None, objective=KdObjective())
        torch.rand(np.random.default_rng().integers(1, 9))  # what happened before does not matter
        prepared = made.prepare(batch(), second_view=True)
        made.update(prepared, Phase.STUDENT, step=3, epoch=0.0)
        results.append(student[2].weight.detach().clone())
    assert torch.equal(*results)


def test_strength_zero_leaves_nothing_to_learn_and_the_run_ends(tmp_path: Path):
    config = tiny_config("augmentor.strength=0.0", "optim.steps=12")
    assert run_here(config, tmp_path / "run") is Status.FINISHED
    assert read_json(tmp_path / "run" / "outcome.json")["steps"] == {"student": 12, "augmentor": 0}


@pytest.mark.parametrize(
    "augmentor",
    [
        "augmentor.kind=mix",
        "augmentor={kind: vae, autoencoder: {model: AUTOENCODER}}",
        "augmentor={kind: vae, autoencoder: {model: AUTOENCODER}, finetune_lr: 1.0e-4}",
        "augmentor={kind: sequence, augmentors: [{kind: affine}, {kind: mix}, {kind: trivial_augment}]}",
        "augmentor={kind: sequence, augmentors: [{kind: policy, hidden_dim: 8}, {kind: cutmix}]}",
        "augmentor={kind: pick, score: kl, augmentor: {kind: policy, hidden_dim: 8}}",
    ],
)
def test_other_augmentors_train_to_the_end_and_again_to_the_same_bits(tmp_path: Path, augmentor: str):
    save("kl", tmp_path / "autoencoder", channels=1)
    tiny = [override for override in TINY if not override.startswith("augmentor.")]
    chosen = augmentor.replace("AUTOENCODER", str(tmp_path / "autoencoder"))
    config = load_config(preset="digits", overrides=[*tiny, chosen, "tracking.gallery_images=2"])
    for name in ("one", "two"):
        assert run_here(config, tmp_path / name) is Status.FINISHED
    assert read_json(tmp_path / "one" / "outcome.json")["steps"]["augmentor"] > 0
    assert_equal_bits(student_weights(tmp_path / "one"), student_weights(tmp_path / "two"))


def test_an_augmentor_phase_without_an_augmentor_is_refused():
    teacher, student = nets()
    made = updater(teacher, student, augmentor=None)
    prepared = made.prepare(batch(), second_view=False)
    with pytest.raises(RuntimeError, match="needs an augmentor that learns"):
        made.update(prepared, Phase.AUGMENTOR, step=0, epoch=0.0)


def test_every_dtype_of_the_configuration_is_known():
    assert set(DTYPES) == set(get_args(Dtype))


@pytest.mark.parametrize("phase", [Phase.STUDENT, Phase.AUGMENTOR])
def test_ranks_with_unequal_parts_together_make_the_gradient_of_the_whole_batch(phase: Phase):
    whole = batch(rows=12)
    images = (whole.images, whole.labels, whole.sample_ids, whole.epochs)
    parts = [(slice(0, 12), 1.0), (slice(0, 7), 7 / 6), (slice(7, 12), 5 / 6)]
    grads = []
    for rows, share in parts:
        teacher, student = nets(torch.float64)
        made = updater(teacher, student, augmentor=affine(torch.float64), round_pixels=False)
        made.__class__ = Float64Updater
        made.share = share
        optimizer = made.learner.optimizer if phase is Phase.STUDENT else made.learner.augmentor_optimizer
        optimizer.step = lambda: None
        made.update(
            made.prepare(Batch(*(array[rows] for array in images)), second_view=False),
            phase,
            step=0,
            epoch=0.0,
        )
        network = student if phase is Phase.STUDENT else made.learner.augmentor
        grads.append([parameter.grad.clone() for parameter in network.parameters()])
    for alone, first, second in zip(*grads, strict=True):
        torch.testing.assert_close((first + second) / 2, alone, rtol=1e-9, atol=1e-12)
