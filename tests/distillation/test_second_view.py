"""The second view in the step: picked, attacked, generated, joined."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from hard_ray.augmentors.base import Augmentor
from hard_ray.augmentors.build import build_augmentor
from hard_ray.config.augmentor import (
    AdversarialAugmentor,
    CutmixAugmentor,
    GeneratedAugmentor,
    MixupAugmentor,
    PickAugmentor,
    SequenceAugmentor,
)
from hard_ray.config.controller import Phase
from hard_ray.config.objective import DadObjective, KdObjective
from hard_ray.data.batch import Batch
from hard_ray.distillation.phases import Augmented, Prepared
from hard_ray.distillation.step import Updater
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool
from hard_ray.maths import losses
from hard_ray.maths.t_stddev import ITERATIONS, WATCHED_GROUPS, t_stddev
from tests.distillation.test_step import batch, nets, updater


class Counting(LocalPool):
    """Remembers how many images each request had."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__(FrozenNetwork(teacher))
        self.asked: list[tuple[str, int]] = []

    def logits(self, images):
        self.asked.append(("logits", len(images)))
        return super().logits(images)

    def loss_and_grad(self, images, objective, context):
        self.asked.append(("gradient", len(images)))
        return super().loss_and_grad(images, objective, context)


def built(config: object) -> Augmentor:
    augmentor = build_augmentor(config, in_chans=1, img_size=28)
    assert augmentor is not None
    return augmentor


def made(
    config: object, objective: object = KdObjective(), student: nn.Module | None = None
) -> tuple[Updater, Counting]:
    teacher, mlp = nets()
    found = updater(teacher, student or mlp, augmentor=None, objective=objective)
    found.learner.augmentor = built(config)
    found.pool = pool = Counting(teacher)
    return found, pool


def candidates(found: Updater, given: Batch) -> tuple[Prepared, Augmented]:
    prepared = found.prepare(given, second_view=True)
    assert prepared.augmented is not None
    return prepared, prepared.augmented


@pytest.mark.parametrize("score", ["kl", "teacher_entropy", "student_entropy"])
def test_the_pick_is_the_better_half_of_all_candidates_by_a_longhand_score(score: str):
    found, pool = made(PickAugmentor(score=score))
    prepared, pooled = candidates(found, batch())
    teacher, student = pool.teacher.network, found.learner.network
    with torch.no_grad():
        t, s = teacher.eval()(pooled.images).double(), student.eval()(pooled.images).double()
        student.train()
    p, q = t.softmax(dim=1), s.softmax(dim=1)
    p4, q4 = (t / 4).softmax(dim=1), (s / 4).softmax(dim=1)
    longhand = {
        "kl": (p4 * (p4 / q4).log()).sum(dim=1),
        "teacher_entropy": -(p * p.log()).sum(dim=1),
        "student_entropy": -(q * q.log()).sum(dim=1),
    }[score]
    best = set(np.argsort(-longhand.numpy(), kind="stable")[:16].tolist())
    answers = found.wait(pooled.teacher)
    kept, labels = found.choose(pooled, answers, len(prepared.images))
    chosen = sorted(best)
    assert torch.equal(kept.images, pooled.images[chosen])
    assert torch.equal(kept.sources, pooled.sources[chosen])
    assert torch.equal(kept.rows, torch.tensor(chosen) % 16)
    torch.testing.assert_close(labels.double(), t[chosen], atol=1e-4, rtol=1e-4)


def test_the_teachers_scores_are_its_labels_and_it_is_asked_once_about_each_candidate():
    asked = {}
    for score in ("kl", "teacher_entropy", "student_entropy"):
        found, pool = made(PickAugmentor(score=score, pool=3))
        prepared = found.prepare(batch(), second_view=True)
        found.update(prepared, Phase.STUDENT, step=0, epoch=0.0)
        asked[score] = pool.asked
    assert asked["kl"] == asked["teacher_entropy"] == [("logits", 16), ("logits", 48)]
    assert asked["student_entropy"] == [("logits", 16), ("logits", 16)]


@pytest.mark.parametrize("score", ["kl", "student_entropy"])
def test_scoring_moves_no_buffer_of_the_student_and_leaves_it_in_training(score: str):
    torch.manual_seed(3)
    student = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 26**2, 10)).train()
    found, _ = made(PickAugmentor(score=score), student=student)
    _, pooled = candidates(found, batch())
    before = copy.deepcopy(student.state_dict())
    found.choose(pooled, found.wait(pooled.teacher), 16)
    assert student.training
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())


def test_a_picked_view_trains_on_as_many_images_as_the_batch_and_the_same_at_every_run():
    weights = []
    for _ in range(2):
        found, _ = made(PickAugmentor(augmentor=MixupAugmentor(per="image"), score="kl"))
        for step in range(3):
            prepared = found.prepare(batch(), second_view=True)
            metrics = found.update(prepared, Phase.STUDENT, step=step, epoch=0.0)
        weights.append(torch.cat([p.detach().flatten() for p in found.learner.network.parameters()]))
    assert torch.equal(*weights)
    assert metrics["train/disagreement"] > 0


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_an_attack_through_the_pool_raises_the_teachers_loss_within_its_ball(norm: str):
    config = AdversarialAugmentor(norm=norm, eps=1.0 if norm == "l2" else 0.05, step_size=0.5, steps=3, random_start=0)
    found, pool = made(config, DadObjective())
    found.round_pixels = False
    prepared, attacked = candidates(found, batch())
    assert pool.asked == [("logits", 16), *[("gradient", 16)] * 3, ("logits", 16)]
    offset = (attacked.images - prepared.images).flatten(1)
    length = offset.norm(dim=1) if norm == "l2" else offset.abs().amax(dim=1)
    assert length.max() <= config.eps + 1e-5
    teacher = pool.teacher.network
    with torch.no_grad():
        before = losses.cross_entropy(teacher(prepared.images), prepared.labels)
        after = losses.cross_entropy(teacher(attacked.images), prepared.labels)
    assert (after > before).float().mean() > 0.9


def with_generated(given: Batch) -> Batch:
    return Batch(given.images, given.labels, given.sample_ids, given.epochs, generated=255 - given.images)


def test_generated_images_are_the_second_view():
    found, _ = made(GeneratedAugmentor(path="none"), DadObjective())
    _, view = candidates(found, with_generated(batch()))
    expected = torch.tensor(255 - batch().images).float() / 255
    torch.testing.assert_close(view.images, expected)


def test_generated_images_can_be_mixed_after_that():
    parts = SequenceAugmentor(augmentors=(GeneratedAugmentor(path="none"), MixupAugmentor()))
    found, _ = made(parts, DadObjective())
    prepared, view = candidates(found, with_generated(batch()))
    longhand = torch.einsum("vb,bchw->vchw", view.sources, prepared.given.generated)
    torch.testing.assert_close(view.images, longhand, atol=0.5 / 255 + 1e-6, rtol=0)


@pytest.mark.parametrize("join", ["mixup", "cutmix", "either"])
def test_joined_images_are_one_mixed_batch_of_both_that_alone_is_learned_from(join: str):
    found, pool = made(GeneratedAugmentor(path="none", join=join), DadObjective(weighting="released"))
    prepared, view = candidates(found, with_generated(batch()))
    assert prepared.teacher is None
    assert len(view.images) == 32
    torch.testing.assert_close(view.sources.sum(dim=1), torch.ones(32))
    metrics = found.update(prepared, Phase.STUDENT, step=0, epoch=0.0)
    assert pool.asked == [("logits", 32)]
    assert {"train/ce_augmented", "train/disagreement"} <= set(metrics)
    assert not {"train/ce_loss", "train/kd_loss"} & set(metrics)


def test_t_stddev_is_a_metric_once_enough_groups_are_full_and_equals_a_longhand_value():
    found, pool = made(CutmixAugmentor(), KdObjective())
    teacher = pool.teacher.network.eval()
    seen, groups = [], []
    for step in range(ITERATIONS * (WATCHED_GROUPS + 1)):
        given = batch()
        given = Batch(given.images, given.labels, given.sample_ids + 16 * step, given.epochs)
        prepared, view = candidates(found, given)
        with torch.no_grad():
            both = [teacher(images).softmax(dim=1).mean(dim=0) for images in (prepared.images, view.images)]
        seen.append((both[0] + both[1]) / 2)
        if len(seen) == ITERATIONS:
            groups.append(torch.stack(seen).mean(dim=0))
            seen = []
        metrics = found.update(prepared, Phase.STUDENT, step=step, epoch=0.0)
        assert ("augmentor/t_stddev" in metrics) == (not seen and len(groups) >= WATCHED_GROUPS)
    longhand = np.stack([group.numpy() for group in groups[-WATCHED_GROUPS:]]).astype(np.float64)
    expected = longhand.std(axis=0, ddof=1).mean()
    assert metrics["augmentor/t_stddev"].item() == pytest.approx(expected, rel=1e-4)
    assert t_stddev(torch.from_numpy(longhand)).item() == pytest.approx(expected, rel=1e-12)
