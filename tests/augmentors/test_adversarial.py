from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hard_ray.augmentors.adversarial import Adversarial
from hard_ray.augmentors.base import AugmentationInput
from hard_ray.config.augmentor import AdversarialAugmentor
from hard_ray.config.networks import StudentConfig
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool, label_gradient
from hard_ray.maths.attacks import START_DRAWS, distance
from hard_ray.networks.network import ImageSpec, build_student
from hard_ray.networks.precision import Precision
from tests.augmentors.made import Halving

LABELS = torch.arange(8) % 4


@pytest.fixture(scope="module")
def teacher() -> FrozenNetwork:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    spec = ImageSpec(16, 1, tuple("abcd"))
    return FrozenNetwork(build_student(StudentConfig(model="hardray_cnn", model_kwargs={"widths": [4, 8]}), spec))


def batch(teacher: FrozenNetwork) -> AugmentationInput:
    random = torch.Generator().manual_seed(0)
    images = torch.rand(8, 1, 16, 16, generator=random)
    gradient = label_gradient(LocalPool(teacher), Precision(torch.device("cpu")))
    noise = torch.randn(8, START_DRAWS, generator=random)
    return AugmentationInput(images, noise, labels=LABELS, gradient=gradient)


def cross_entropy(teacher: FrozenNetwork, images: Tensor) -> Tensor:
    return F.cross_entropy(torch.tensor(teacher.logits(images.numpy())), LABELS, reduction="none")


def test_the_attack_raises_the_teachers_cross_entropy_on_every_image(teacher: FrozenNetwork):
    given = batch(teacher)
    config = AdversarialAugmentor(eps=1.0, step_size=0.25, steps=6, random_start=0.0)
    found = Adversarial(config)(given)
    assert (cross_entropy(teacher, found) > cross_entropy(teacher, given.images)).all()


def test_at_strength_zero_the_input_tensor_itself_comes_back_and_nobody_is_asked(teacher: FrozenNetwork):
    given = AugmentationInput(batch(teacher).images, batch(teacher).noise)
    augmentor = Adversarial(AdversarialAugmentor(strength=0.0), Halving())
    assert augmentor(given) is given.images


def test_at_half_the_strength_images_stay_within_half_the_radius(teacher: FrozenNetwork):
    given = batch(teacher)
    for strength in (0.5, 1.0):
        config = AdversarialAugmentor(eps=0.4, step_size=1.0, strength=strength)
        moved = distance(Adversarial(config)(given), given.images, norm="l2")
        assert (moved <= 0.4 * strength + 1e-6).all()
        assert moved.max() > 0.39 * strength


def test_a_discretiser_stands_before_and_behind_the_attack(teacher: FrozenNetwork):
    given, coder = batch(teacher), Halving()
    found = Adversarial(AdversarialAugmentor(), coder)(given)
    blocks = F.avg_pool2d(found, 2).repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(found, blocks)
    means = coder.reconstruct(given.images)
    torch.testing.assert_close(found, coder.reconstruct(Adversarial(AdversarialAugmentor())(_of(given, means))))
    plain = Adversarial(AdversarialAugmentor())(given)
    assert not torch.allclose(plain, F.avg_pool2d(plain, 2).repeat_interleave(2, -1).repeat_interleave(2, -2))
    assert not any(parameter.requires_grad for parameter in coder.parameters())


def test_nothing_is_trained_or_kept_in_checkpoints_and_the_discretiser_moves_along():
    augmentor = Adversarial(AdversarialAugmentor(), Halving())
    assert augmentor.parameter_groups() == []
    assert augmentor.state_dict() == {}
    assert augmentor.double().held[0].gain.dtype == torch.float64


def test_without_labels_or_a_teacher_it_says_what_is_missing(teacher: FrozenNetwork):
    given = batch(teacher)
    with pytest.raises(RuntimeError, match="need labels and a teacher"):
        Adversarial(AdversarialAugmentor())(AugmentationInput(given.images, given.noise))


def _of(given: AugmentationInput, images: Tensor) -> AugmentationInput:
    return AugmentationInput(images.detach(), given.noise, labels=given.labels, gradient=given.gradient)
