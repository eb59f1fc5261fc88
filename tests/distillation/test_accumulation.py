"""A batch in parts makes the update of the whole batch, whatever its views and labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

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
from tests.distillation.test_step import Float64Updater, batch, nets, updater

CASES = [
    (IdentityAugmentor(), CrossEntropyObjective()),
    (IdentityAugmentor(), CrossEntropyObjective(jsd=12)),
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
    splits = np.random.default_rng(2).integers(0, 255, (rows, 2, *found.images.shape[1:])).astype(np.uint8)
    return replace(found, generated=np.ascontiguousarray(found.images[::-1]), splits=splits)


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


def test_only_the_last_part_brings_the_gradients_to_the_other_ranks(tmp_path: Path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        sent = []

        def hook(_, bucket):  # torch looks at annotations, and knows none that are texts
            sent.append(bucket.index())
            done = torch.futures.Future()
            done.set_result(bucket.buffer())
            return done

        students = []
        for accumulate in (1, 3):
            teacher, student = nets()
            made = updater(teacher, student, augmentor=None, objective=KdObjective())
            wrapped = DistributedDataParallel(student)
            wrapped.register_comm_hook(None, hook)
            made.learner.student, made.accumulate = wrapped, accumulate
            made.update(made.prepare(batch(), second_view=True), Phase.STUDENT, step=0, epoch=0.0)
            students.append(torch.cat([parameter.detach().flatten() for parameter in student.parameters()]))
        assert sent.count(0) == 2  # once for each update
        torch.testing.assert_close(*students, rtol=0, atol=1e-6)
    finally:
        torch.distributed.destroy_process_group()


def test_a_part_has_all_views_of_its_images_and_looks_up_their_labels_in_the_whole_batch():
    labels = torch.tensor([3, 1, 4, 1, 5])
    rows = torch.tensor([4, 0, 0, 2, 1, 3, 2, 1, 4, 0])  # two views of five images
    views = Views(labels, None, torch.rand(5, 6), None, torch.rand(10, 6), rows, torch.eye(5)[rows])
    first, second = views.parts(2)
    for part, images, places in ((first, [0, 1, 2], [0, 1, 2, 5, 6, 7]), (second, [3, 4], [3, 4, 8, 9])):
        assert part.batch is views
        assert torch.equal(part.classes(), labels[images])
        assert torch.equal(part.teacher, views.teacher[images])
        assert torch.equal(part.teacher_augmented, views.teacher_augmented[places])
        assert torch.equal(part.augmented_classes(), labels[rows][places])
        like = torch.rand(len(places), 6)
        assert torch.equal(part.augmented_targets(like), views.augmented_targets(torch.rand(10, 6))[places])
    assert views.parts(1)[0].batch is views
