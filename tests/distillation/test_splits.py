"""Several views of an image in the step: AugMix's Jensen-Shannon term."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.loss import JsdCrossEntropy
from torch import nn

from hard_ray.config.controller import Phase
from hard_ray.config.objective import CrossEntropyObjective, KdObjective
from hard_ray.config.run import as_control
from hard_ray.data.batch import Batch
from hard_ray.distillation.loop import Status
from tests.distillation.test_step import Float64Updater, batch, nets, updater
from tests.support.helpers import run_here, student_weights, tiny_config


def with_splits(views: int = 3) -> Batch:
    given, random = batch(), np.random.default_rng(1)
    shape = (len(given), views - 1, *given.images.shape[1:])
    return replace(given, splits=random.integers(0, 255, shape).astype(np.uint8))


def convolutions() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 26**2, 10))


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("second_view", [True, False])
def test_the_loss_is_timms_of_one_forward_pass_over_all_views(views: int, second_view: bool):
    student = convolutions()
    reference, given = copy.deepcopy(student), with_splits(views)
    found = updater(nets()[0], student, augmentor=None, objective=CrossEntropyObjective(jsd=12))
    found.objective.smoothing, found.pool = 0.1, None
    metrics = found.update(found.prepare(given, second_view=second_view), Phase.STUDENT, step=0, epoch=0.0)

    every = [given.images, *(given.splits[:, view] for view in range(views - 1))]
    answers = reference(torch.tensor(np.concatenate(every)).float() / 255)
    labels = torch.tensor(given.labels)
    loss = JsdCrossEntropy(num_splits=views, alpha=12, smoothing=0.1)(answers, labels.repeat(views))
    torch.testing.assert_close(metrics["train/loss"], loss)
    assert metrics["train/jsd_loss"] > 0
    top1 = 100 * (answers[: len(labels)].argmax(dim=1) == labels).float().mean()
    torch.testing.assert_close(metrics["train/top1"], top1)
    torch.testing.assert_close(student[1].running_mean, reference[1].running_mean)  # BatchNorm sees all views


@pytest.mark.parametrize("accumulate", [3, 16])
def test_parts_of_a_batch_compare_the_views_of_their_own_images(accumulate: int):
    updated = []
    for count in (1, accumulate):
        student = nets(torch.float64)[1]
        found = updater(nets()[0], student, augmentor=None, objective=CrossEntropyObjective(jsd=12), lr=0.1)
        found.__class__, found.accumulate = Float64Updater, count
        metrics = found.update(found.prepare(with_splits(), second_view=True), Phase.STUDENT, step=0, epoch=0.0)
        updated.append((metrics["train/jsd_loss"], *student.parameters()))
    torch.testing.assert_close(updated[0], updated[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("objective", [CrossEntropyObjective(), KdObjective()])
def test_a_training_that_compares_no_views_leaves_them_alone(objective: object):
    losses = []
    for given in (with_splits(), batch()):
        teacher, student = nets()
        found = updater(teacher, student, augmentor=None, objective=objective)
        losses.append(found.update(found.prepare(given, second_view=True), Phase.STUDENT, step=0, epoch=0.0))
    assert losses[0] == losses[1]


def test_views_that_are_compared_and_not_there_are_missed_in_words():
    found = updater(*nets(), augmentor=None, objective=CrossEntropyObjective(jsd=12))
    with pytest.raises(ValueError, match="set data.augment.splits"):
        found.update(found.prepare(batch(), second_view=True), Phase.STUDENT, step=0, epoch=0.0)


def test_the_control_learns_from_the_views_that_the_data_makes(tmp_path: Path):
    views = ("data.augment={auto_augment: augmix-m3-w3, splits: 3}", "optim.steps=3", "optim.batch_size=16")
    weights = []
    for weight in (12, 1):
        config = as_control(tiny_config(*views, f"experiment.jsd={weight}"), "labels_only")
        assert run_here(config, tmp_path / str(weight)) is Status.FINISHED
        weights.append(student_weights(tmp_path / str(weight)))
    assert any(not torch.equal(value, weights[1][name]) for name, value in weights[0].items())
