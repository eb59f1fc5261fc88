import math

import pytest
import torch

from hard_ray.augmentors.affine import PARAMETERS, transform
from hard_ray.augmentors.base import AugmentationInput
from hard_ray.augmentors.random_affine import RandomAffine
from hard_ray.config.augmentor import RandomAffineAugmentor


def made(**config: object) -> RandomAffine:
    return RandomAffine(RandomAffineAugmentor(**config))


def batch(rows: int = 8, size: int = 20) -> AugmentationInput:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(rows, 1, size, size, generator=generator)
    return AugmentationInput(images, torch.randn(rows, len(PARAMETERS), generator=generator))


def test_strength_zero_returns_the_input_tensor_itself():
    given = batch()
    assert made(strength=0.0)(given) is given.images


def test_there_is_nothing_to_learn():
    assert list(made().parameters()) == []


def test_the_same_noise_gives_the_same_bits_and_another_does_not():
    given = batch()
    assert torch.equal(made()(given), made()(batch()))
    assert not torch.equal(made()(given), made()(AugmentationInput(given.images, given.noise.roll(1, dims=0))))


def test_each_image_depends_on_its_own_noise_alone():
    given = batch()
    alone = made()(AugmentationInput(given.images[3:4], given.noise[3:4]))
    torch.testing.assert_close(alone, made()(given)[3:4])


def test_the_range_is_kept_and_the_shape_too():
    given = batch()
    found = made()(given)
    assert found.shape == given.images.shape
    assert found.min() >= 0
    assert found.max() <= 1
    assert not torch.equal(found, given.images)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_every_parameter_is_uniform_within_its_bounds(strength: float):
    noise = torch.randn(20_000, len(PARAMETERS), generator=torch.Generator().manual_seed(0))
    sampled = made(strength=strength).sample(noise)
    reach = strength * torch.tensor([0.5, 0.5, math.radians(30), math.log(1.25), math.tan(math.radians(15))])
    assert (sampled.abs() <= reach).all()
    shares = torch.stack([torch.histc(each, bins=10, min=-1, max=1) for each in (sampled / reach).unbind(dim=1)])
    assert (shares / len(noise) - 0.1).abs().max() < 0.01
    between = torch.corrcoef((sampled / reach).T) - torch.eye(len(PARAMETERS))
    assert between.abs().max() < 0.03


def test_a_bound_of_nothing_leaves_its_parameter_out():
    augmentor = made(max_rotation=0, max_scale=1, max_shear=0, max_shift=0.1071)
    given = batch(rows=400)
    sampled = augmentor.samples(given)
    for name in ("rotation", "log_scale", "shear"):
        assert not sampled[name].any()
    pixels = sampled["shift_x"] * 28 / 2
    assert 2.8 < pixels.abs().max() <= 3.0


def test_the_images_are_those_of_the_sampled_parameters():
    given, augmentor = batch(), made(padding="border")
    rows = torch.stack([augmentor.samples(given)[name] for name in PARAMETERS], dim=1)
    assert torch.equal(augmentor(given), transform(given.images, rows, padding="border"))


def test_the_bounds_of_samples_are_those_at_the_strength():
    found = made(strength=0.5).bounds_of_samples()
    assert found["rotation"] == pytest.approx((-math.radians(15), math.radians(15)))
    assert list(found) == list(PARAMETERS)
