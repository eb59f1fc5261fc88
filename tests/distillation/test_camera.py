"""Snapshots of the augmentor during a training."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hard_ray.augmentors.base import AugmentationInput
from hard_ray.config.optim import OptimConfig
from hard_ray.config.run import RunConfig, as_control
from hard_ray.data.batch import Batch
from hard_ray.distillation.camera import Camera, to_pixels
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool
from hard_ray.maths.noise import normal
from hard_ray.networks.network import ImageSpec, build_student
from hard_ray.networks.precision import Precision
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.snapshots import read_snapshot, snapshot_paths
from tests.augmentors.made import KINDS, make
from tests.support.helpers import run_here, tiny_config

SPEC = ImageSpec(20, 1, ("ant", "bee", "cat"))
MLP = tiny_config("data.img_size=20").student


def camera(kind: str) -> Camera:
    torch.manual_seed(3)
    teacher, student = build_student(MLP, SPEC, role="teacher"), build_student(MLP, SPEC)
    precision = Precision(torch.device("cpu"), torch.float32, channels_last=False)
    return Camera(make(kind), student, LocalPool(FrozenNetwork(teacher)), precision, seed=5)


def batch(count: int = 6) -> Batch:
    images = np.random.default_rng(0).integers(0, 256, (count, 1, 20, 20), dtype=np.uint8)
    return Batch(images, np.arange(count) % 3, np.arange(count) + 100, np.full(count, -1))


@pytest.mark.parametrize("kind", KINDS)
def test_about_512_values_are_drawn_within_their_bounds_for_every_augmentor(kind: str):
    found = camera(kind).take(7, batch())
    assert found.samples.keys() == found.bounds.keys() != set()
    for name, values in found.samples.items():
        low, high = found.bounds[name]
        assert len(values) == 516  # 86 rounds of 6 images
        assert low - 1e-6 <= values.min() < values.max() <= high + 1e-6
        assert len(np.unique(values)) > 400  # further noise, not the same again


def test_the_same_augmentor_gives_the_same_snapshot_at_every_call():
    made, given = camera("sequence"), batch()
    one, other = made.take(7, given), made.take(8, given)
    np.testing.assert_array_equal(one.augmented.images, other.augmented.images)
    for name, values in one.samples.items():
        np.testing.assert_array_equal(values, other.samples[name])


def test_a_snapshot_holds_what_augmentor_and_networks_say():
    made, given = camera("affine"), batch()
    found = made.take(7, given)
    images = torch.from_numpy(given.images) / 255.0
    draws = normal("gallery", seed=5, epochs=given.epochs, sample_ids=given.sample_ids, count=made.augmentor.noise_dim)
    with torch.no_grad():
        augmented = to_pixels(made.augmentor(AugmentationInput(images, torch.from_numpy(draws))))
        logits = made.student.eval()(torch.from_numpy(augmented) / 255.0)
    np.testing.assert_array_equal(found.original.images, given.images)
    np.testing.assert_array_equal(found.augmented.images, augmented)
    assert found.augmented.student.classes.tolist() == logits.argmax(dim=1).tolist()
    assert found.augmented.student.confidences.tolist() == pytest.approx(logits.softmax(dim=1).amax(dim=1).tolist())
    teacher = made.pool.logits(given.images).result()
    assert found.original.teacher.classes.tolist() == teacher.argmax(axis=1).tolist()
    assert (found.step, found.labels.tolist()) == (7, given.labels.tolist())


def test_a_run_keeps_a_snapshot_beside_each_picture(tmp_path: Path):
    run_here(tiny_config("tracking.gallery_images=4", "optim.steps=8", "validate.every=0.1"), tmp_path)
    folder = RunFolder(tmp_path)
    paths = snapshot_paths(folder)
    assert [path.stem for path in paths] == [path.stem for path in folder.pictures]
    found = [read_snapshot(path) for path in paths]
    assert found[0].step == 0
    assert [path.stem for path in paths] == [f"step-{snapshot.step:08d}" for snapshot in found]
    assert len(found) > 2
    np.testing.assert_array_equal(found[0].original.images, found[-1].original.images)
    assert any((found[0].samples[name] != values).any() for name, values in found[-1].samples.items())  # it learned


@pytest.mark.parametrize("config", [tiny_config(), as_control(tiny_config("tracking.gallery_images=4"), "kd")])
def test_a_run_without_pictures_or_augmentor_keeps_none(tmp_path: Path, config: RunConfig):
    run_here(config.model_copy(update={"optim": OptimConfig(steps=2, batch_size=32)}), tmp_path)
    assert not (tmp_path / "gallery").exists()
