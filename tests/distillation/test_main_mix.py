"""The mixed main view in the step: the teacher labels the student's pixels, and labels are mixed with them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hard_ray.augmentors.build import build_augmentor
from hard_ray.augmentors.labels import MixedLabels
from hard_ray.augmentors.main_mix import MainMix
from hard_ray.config.augmentor import (
    AdversarialAugmentor,
    AffineAugmentor,
    CutmixAugmentor,
    GeneratedAugmentor,
    MixAugmentor,
    PickAugmentor,
)
from hard_ray.config.controller import Phase
from hard_ray.config.mix import MixConfig
from hard_ray.config.objective import (
    CrossEntropyObjective,
    DadObjective,
    DkdObjective,
    FunctionMatchingObjective,
    HardObjective,
    KdObjective,
)
from hard_ray.config.run import as_control
from hard_ray.data.batch import Batch
from hard_ray.distillation.guard import Guard
from hard_ray.distillation.loop import Status
from hard_ray.distillation.objectives import LabelCrossEntropy, Views, label_context
from hard_ray.distillation.step import Updater
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool
from hard_ray.errors import DivergedError
from hard_ray.maths import losses
from hard_ray.ranks import Ranks
from tests.distillation.test_step import batch, nets, updater
from tests.support.helpers import assert_equal_bits, run_here, student_weights, tiny_config

BOTH = MixConfig(mixup=0.8, cutmix=1.0, mode="elem")


class Recording(LocalPool):
    """Remembers the pixels of every request."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__(FrozenNetwork(teacher))
        self.pixels: list[np.ndarray] = []
        self.contexts: list[dict] = []

    def logits(self, images):
        self.pixels.append(images.copy())
        return super().logits(images)

    def loss_and_grad(self, images, objective, context):
        self.contexts.append(dict(context))
        return super().loss_and_grad(images, objective, context)


class Watched(nn.Module):
    """A student that remembers its inputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.inputs: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.inputs.append(images.detach().clone())
        return self.network(images)


def made(
    objective: object, augmentor: object = None, *, mix: MixConfig | None = BOTH, round_pixels: bool = True
) -> tuple[Updater, Recording, Watched]:
    teacher, student = nets()
    torch.manual_seed(4)
    built = None if augmentor is None else build_augmentor(augmentor, in_chans=1, img_size=28)
    watched = Watched(student)
    found = updater(teacher, watched, augmentor=None, objective=objective, round_pixels=round_pixels)
    found.learner.augmentor = built
    if built is not None and built.parameter_groups():
        found.learner.augmentor_optimizer = torch.optim.AdamW(built.parameters(), lr=1e-2)
    found.pool = pool = Recording(teacher)
    found.mix = None if mix is None else MainMix(mix)
    found.objective.has_second_view = built is not None
    return found, pool, watched


@pytest.mark.parametrize("mode", ["batch", "elem"])
@pytest.mark.parametrize("round_pixels", [True, False])
def test_the_teacher_is_asked_about_exactly_the_pixels_of_the_student(mode: str, round_pixels: bool):
    mix = MixConfig(mixup=0.8, cutmix=1.0, mode=mode)
    found, pool, student = made(KdObjective(), mix=mix, round_pixels=round_pixels)
    prepared = found.prepare(batch(), second_view=True)
    found.update(prepared, Phase.STUDENT, step=0, epoch=0.0)
    (asked,), (learned,) = pool.pixels, student.inputs
    assert asked.dtype == (np.uint8 if round_pixels else np.float32)
    assert (asked != (batch().images if round_pixels else batch().images / np.float32(255))).any()
    seen = torch.tensor(asked).float() / 255 if round_pixels else torch.tensor(asked)
    assert seen.numpy().tobytes() == learned.numpy().tobytes()


@pytest.mark.parametrize("augmentor", [AffineAugmentor(noise_dim=8, hidden_dim=16), MixAugmentor(), CutmixAugmentor()])
def test_both_views_are_the_pixels_that_the_teacher_labels_and_the_second_is_made_of_the_mixed_one(augmentor: object):
    found, pool, student = made(HardObjective() if hasattr(augmentor, "lr") else KdObjective(), augmentor)
    prepared = found.prepare(batch(), second_view=True)
    assert prepared.given.images is prepared.images
    found.update(prepared, Phase.STUDENT, step=0, epoch=0.0)
    asked = torch.cat([torch.tensor(pixels) for pixels in pool.pixels]).float() / 255
    (learned,) = student.inputs
    assert asked.numpy().tobytes() == learned.numpy().tobytes()


def test_without_a_second_view_of_its_own_the_only_request_is_about_the_second_view_of_the_mixed_one():
    found, pool, student = made(FunctionMatchingObjective(), CutmixAugmentor())
    found.update(found.prepare(batch(), second_view=True), Phase.STUDENT, step=0, epoch=0.0)
    (asked,), (learned,) = pool.pixels, student.inputs
    assert (torch.tensor(asked).float() / 255).numpy().tobytes() == learned.numpy().tobytes()


def shares_of(labels: MixedLabels) -> Tensor:
    """The share of each class, longhand."""
    shares = torch.zeros(len(labels.share), 10)
    for row, (first, second, share) in enumerate(zip(labels.first, labels.second, labels.share, strict=True)):
        shares[row, first] += share
        shares[row, second] += 1 - share
    return shares


def d(teacher: Tensor, student: Tensor, temperature: float = 4.0) -> Tensor:
    log_t, log_s = ((logits / temperature).log_softmax(dim=1) for logits in (teacher, student))
    return temperature**2 * (log_t.exp() * (log_t - log_s)).sum(dim=1)


@pytest.mark.parametrize(
    "objective",
    [
        HardObjective(w_ce=0.5),
        KdObjective(),
        DkdObjective(warmup_epochs=0),
        FunctionMatchingObjective(),
        CrossEntropyObjective(),
    ],
)
def test_the_loss_of_a_mixed_batch_equals_its_formula(objective: object):
    found, pool, student = made(objective)
    found.objective.smoothing = 0.1
    prepared = found.prepare(batch(), second_view=True)
    assert isinstance(prepared.labels, MixedLabels)
    images, labels = prepared.images, prepared.labels
    with torch.no_grad():
        t, s = pool.teacher.network.eval()(images), student.network(images)
    smooth = 0.9 * shares_of(labels) + 0.01
    ce, kd = -(smooth * s.log_softmax(dim=1)).sum(dim=1), d(t, s)
    larger = shares_of(labels).argmax(dim=1)
    assert (larger != torch.tensor(batch().labels)).any()
    expected = {
        "hard": kd + 0.5 * ce,
        "kd": 0.1 * ce + 0.9 * kd,
        "dkd": ce + losses.dkd(s, t, larger, alpha=1.0, beta=8.0, temperature=4.0),
        "function_matching": d(t, s, 1.0),
        "cross_entropy": ce,
    }[objective.kind].mean()
    metrics = found.update(prepared, Phase.STUDENT, step=0, epoch=0.0)
    torch.testing.assert_close(metrics["train/loss"], expected)
    torch.testing.assert_close(metrics["train/top1"], 100 * (s.argmax(dim=1) == larger).float().mean())
    assert len(pool.pixels) == (objective.kind != "cross_entropy")


def test_labels_of_a_second_view_that_mixes_are_shares_of_shares():
    found, pool, student = made(KdObjective(label_augmented=True), CutmixAugmentor(per="image"))
    prepared = found.prepare(batch(), second_view=True)
    view = prepared.augmented
    with torch.no_grad():
        t, s = (network(prepared.images) for network in (pool.teacher.network.eval(), student.network))
        t2, s2 = (network(view.images) for network in (pool.teacher.network, student.network))
    once = shares_of(prepared.labels)
    twice = torch.einsum("vb,bc->vc", view.sources, once)
    ce, ce2 = (-(target * x.log_softmax(dim=1)).sum(dim=1) for target, x in ((once, s), (twice, s2)))
    expected = (0.1 * (ce + ce2) + 0.9 * (d(t, s) + d(t2, s2))).mean()
    metrics = found.update(prepared, Phase.STUDENT, step=0, epoch=0.0)
    torch.testing.assert_close(metrics["train/loss"], expected)


def test_picked_images_keep_the_mixed_labels_of_their_own_row():
    found, _, _ = made(KdObjective(label_augmented=True), PickAugmentor(augmentor=AffineAugmentor(noise_dim=8)))
    prepared = found.prepare(batch(), second_view=True)
    rows = torch.tensor([5, 5, 0, 1])
    logits = torch.randn(4, 10, generator=torch.Generator().manual_seed(1))
    views = Views(prepared.labels, None, None, logits, logits, rows=rows)
    torch.testing.assert_close(views.augmented_targets(logits), shares_of(prepared.labels)[rows])
    assert torch.equal(views.augmented_classes(), shares_of(prepared.labels).argmax(dim=1)[rows])
    assert found.update(prepared, Phase.STUDENT, step=0, epoch=0.0)["train/loss"].isfinite()


def test_an_attack_ascends_the_cross_entropy_to_the_mixed_labels():
    config = AdversarialAugmentor(eps=1.0, step_size=0.5, steps=3, random_start=0)
    found, pool, _ = made(DadObjective(), config, round_pixels=False)
    prepared = found.prepare(batch(), second_view=True)
    assert all(set(context) == {"labels", "second_labels", "share"} for context in pool.contexts)
    shares = shares_of(prepared.labels)
    with torch.no_grad():
        teacher = pool.teacher.network
        clean, attacked = (
            -(shares * teacher(images).log_softmax(dim=1)).sum(dim=1)
            for images in (prepared.images, prepared.augmented.images)
        )
    assert (attacked > clean).float().mean() > 0.9
    logits = torch.randn(16, 10, generator=torch.Generator().manual_seed(1))
    longhand = -(shares * logits.log_softmax(dim=1)).sum(dim=1)
    torch.testing.assert_close(LabelCrossEntropy()(logits, label_context(prepared.labels)), longhand)


def test_generated_images_are_mixed_as_the_images_that_they_were_made_from():
    found, _, _ = made(DadObjective(), GeneratedAugmentor(path="none"))
    given = batch()
    given = Batch(given.images, given.labels, given.sample_ids, given.epochs, generated=255 - given.images)
    prepared = found.prepare(given, second_view=True)
    torch.testing.assert_close(prepared.given.generated, 1 - prepared.images, atol=0.5 / 255 + 1e-6, rtol=0)


def test_an_augmentor_learns_on_the_mixed_view():
    found, pool, _ = made(HardObjective(), AffineAugmentor(noise_dim=8, hidden_dim=16))
    prepared = found.prepare(batch(), second_view=False)
    metrics = found.update(prepared, Phase.AUGMENTOR, step=0, epoch=0.0)
    clean = torch.tensor(pool.contexts[0]["clean"])
    with torch.no_grad():
        torch.testing.assert_close(clean, pool.teacher.network(prepared.images))
    assert metrics["augmentor/loss"].isfinite()


def test_the_batch_of_a_diverged_update_is_kept_as_it_was_mixed(tmp_path: Path):
    found, pool, _ = made(KdObjective())
    guard = Guard(tmp_path, None, Ranks(), torch.device("cpu"), last=found.prepare(batch(), second_view=True))
    with pytest.raises(DivergedError):
        guard.refuse_loss(step=3)
    with np.load(tmp_path / "step-00000003-rank-0.npz", allow_pickle=False) as kept:
        assert kept["images"].tobytes() == pool.pixels[0].tobytes()
        np.testing.assert_array_equal(kept["labels"], batch().labels)
        np.testing.assert_array_equal(kept["second_labels"], guard.last.labels.second)
        np.testing.assert_array_equal(kept["share"], guard.last.labels.share)


def test_the_mixture_is_a_function_of_seed_epoch_and_images_alone():
    first, other = made(KdObjective())[0], made(KdObjective(), AffineAugmentor(noise_dim=8))[0]
    other.prepare(batch(), second_view=False)  # what was prepared before does not matter
    one, two = (each.prepare(batch(), second_view=False).images for each in (first, other))
    assert torch.equal(one, two)
    later = batch()
    later = Batch(later.images, later.labels, later.sample_ids, later.epochs + 1)
    assert not torch.equal(first.prepare(later, second_view=False).images, one)
    first.seed = 1
    assert not torch.equal(first.prepare(batch(), second_view=False).images, one)


@pytest.mark.parametrize("control", [None, "labels_only"])
def test_a_resumed_run_of_mixed_images_has_the_bits_of_the_straight_one(tmp_path: Path, control: str | None):
    config = tiny_config("data.mix={mixup: 0.8, cutmix: 1.0, mode: elem}", "optim.steps=9", "checkpoints.every=0.1")
    config = config if control is None else as_control(config, control)
    assert run_here(config, tmp_path / "straight") is Status.FINISHED
    (tmp_path / "halved").mkdir()
    (tmp_path / "halved" / "stop").touch()
    assert run_here(config, tmp_path / "halved") is Status.STOPPED
    (tmp_path / "halved" / "stop").unlink()
    assert run_here(config, tmp_path / "halved") is Status.FINISHED
    mixed = student_weights(tmp_path / "straight")
    assert_equal_bits(mixed, student_weights(tmp_path / "halved"))
    plain = config.model_copy(update={"data": config.data.model_copy(update={"mix": None})})
    assert run_here(plain, tmp_path / "plain") is Status.FINISHED
    assert any(not torch.equal(mixed[name], value) for name, value in student_weights(tmp_path / "plain").items())
