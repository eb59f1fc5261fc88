"""A batch in parts makes the update of the whole batch, whatever its views and labels."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hard_ray.augmentors.build import build_augmentor
from hard_ray.augmentors.main_mix import MainMix
from hard_ray.config.augmentor import (
    AffineAugmentor,
    CutmixAugmentor,
    GeneratedAugmentor,
    IdentityAugmentor,
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
from hard_ray.data.batch import Batch
from hard_ray.distillation.objectives import StudentObjective, Views
from hard_ray.distillation.phases import StudentPhase
from tests.distillation.test_step import Float64Updater, batch, nets, updater

CASES = [
    (IdentityAugmentor(), CrossEntropyObjective()),
    (IdentityAugmentor(), KdObjective()),
    (AffineAugmentor(noise_dim=8, hidden_dim=8), HardObjective()),
    (AffineAugmentor(noise_dim=8, hidden_dim=8), HardObjective(w_clean=0.0)),
    (AffineAugmentor(noise_dim=8, hidden_dim=8, strength=0.0), HardObjective()),
    (AffineAugmentor(noise_dim=8, hidden_dim=8), DkdObjective(warmup_epochs=0)),
    (CutmixAugmentor(), KdObjective(label_augmented=True)),
    (CutmixAugmentor(), FunctionMatchingObjective()),
    (PickAugmentor(score="kl"), KdObjective(label_augmented=True)),
    (GeneratedAugmentor(path="none", join="cutmix"), DadObjective(weighting="released")),
]
MIXED = MixConfig(mixup=0.8, cutmix=1.0, mode="elem")


def given(rows: int = 16) -> Batch:
    found = batch(rows)
    return replace(found, generated=np.ascontiguousarray(found.images[::-1]))


def trained(
    augmentor: object, objective: object, accumulate: int, mix: MixConfig | None = None
) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """The student after two updates in float64, and the metrics of the last."""
    teacher, student = nets(torch.float64)
    made = updater(teacher, student, augmentor=None, objective=objective, lr=0.1, round_pixels=False)
    made.__class__ = Float64Updater
    torch.manual_seed(1)
    built = build_augmentor(augmentor, in_chans=1, img_size=28)
    made.learner.augmentor = None if built is None else built.double()
    made.objective = StudentObjective(objective, smoothing=0.1, has_second_view=built is not None)
    made.accumulate = accumulate
    made.mix = None if mix is None else MainMix(mix)
    metrics = {}
    for step in range(2):
        prepared = made.prepare(given(), second_view=True)
        metrics = made.update(prepared, Phase.STUDENT, step=step, epoch=0.0)
    return student, metrics


@pytest.mark.parametrize(("accumulate", "mix"), [(3, None), (16, None), (5, MIXED)])
@pytest.mark.parametrize(("augmentor", "objective"), CASES, ids=lambda case: case.kind)
def test_parts_make_the_update_and_the_metrics_of_the_batch(
    augmentor: object, objective: object, accumulate: int, mix: MixConfig | None
):
    whole, measured = trained(augmentor, objective, 1, mix)
    parts, also = trained(augmentor, objective, accumulate, mix)
    assert measured.keys() == also.keys()
    for name, value in measured.items():
        rtol = 1e-9 if value.dtype == torch.float64 else 1e-6
        torch.testing.assert_close(also[name], value, rtol=rtol, atol=1e-12, msg=name)
    for one, other in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_parts_go_through_the_student_one_after_the_other():
    teacher, student = nets()
    sizes: list[int] = []
    student.register_forward_pre_hook(lambda _, images: sizes.append(len(images[0])))
    made = updater(teacher, student, augmentor=None, objective=KdObjective())
    made.accumulate = 3
    made.update(made.prepare(batch(), second_view=True), Phase.STUDENT, step=0, epoch=0.0)
    assert sizes == [6, 5, 5]


def test_only_the_last_part_brings_the_gradients_to_the_other_ranks(monkeypatch: pytest.MonkeyPatch):
    teacher, student = nets()
    made = updater(teacher, student, augmentor=None, objective=KdObjective())
    made.accumulate = 3
    asked: list[bool] = []
    real = StudentPhase.gradients_stay_here

    def noted(self: StudentPhase, partial: bool) -> object:
        asked.append(partial)
        return real(self, partial)

    monkeypatch.setattr(StudentPhase, "gradients_stay_here", noted)
    made.update(made.prepare(batch(), second_view=True), Phase.STUDENT, step=0, epoch=0.0)
    assert asked == [True, True, False]


def test_a_part_looks_up_labels_and_shares_in_the_whole_batch():
    labels = torch.tensor([3, 1, 4, 1, 5])
    rows = torch.tensor([4, 0, 0, 2, 1, 3])
    shares = torch.eye(5)[rows]
    views = Views(labels, None, torch.rand(5, 6), None, torch.rand(6, 6), rows, shares)
    parts = views.parts(2)
    assert torch.cat([part.augmented_classes() for part in parts]).tolist() == labels[rows].tolist()
    mixed = torch.cat([part.augmented_targets(torch.rand(3, 6)) for part in parts])
    assert torch.equal(mixed, views.augmented_targets(torch.rand(6, 6)))
    assert copy.copy(parts[0]).batch is views
    assert views.batch is views
