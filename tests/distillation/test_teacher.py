import numpy as np
import pytest
import torch
from torch import nn

from hard_ray.config.networks import StudentConfig
from hard_ray.distillation.objectives import AugmentorObjective, Disagreement, Drift, LabelCrossEntropy
from hard_ray.distillation.teacher import FrozenNetwork, LocalPool, check_identity
from hard_ray.errors import TeacherError
from hard_ray.maths import losses
from hard_ray.networks.network import ImageSpec, build_student

SPEC = ImageSpec(32, 3, tuple("abcd"))
RANDOM = np.random.default_rng(0)
UINT8 = RANDOM.integers(0, 256, (6, 3, 32, 32)).astype(np.uint8)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_student(StudentConfig(model="cifar_resnet8"), SPEC)


def context(dtype: type = np.float32) -> dict[str, np.ndarray]:
    return {
        "clean": RANDOM.normal(size=(6, 4)).astype(dtype),
        "student": RANDOM.normal(size=(6, 4)).astype(dtype),
        "labels": np.array([0, 1, 2, 3, 0, 1]),
    }


OBJECTIVES = [Drift(4.0), Disagreement(4.0), LabelCrossEntropy(), AugmentorObjective(4.0, 1.0, 0.3, cap=2.0)]


def test_uint8_pixels_mean_the_same_as_their_float_values():
    teacher = FrozenNetwork(network())
    as_float = UINT8.astype(np.float32) / 255
    assert np.array_equal(teacher.logits(UINT8), teacher.logits(as_float))


def test_the_teacher_is_frozen_and_in_evaluation_mode():
    net = network().train()
    teacher = FrozenNetwork(net)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    for _ in range(3):
        teacher.logits(UINT8)
        teacher.loss_and_grad(UINT8, Drift(4.0), context())
    assert not net.training
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_the_gradient_equals_plain_autograd_in_float64(objective: object):
    net = network().double()
    given = context(np.float64)
    images = UINT8.astype(np.float64) / 255
    answer = FrozenNetwork(net).loss_and_grad(images, objective, given)
    pixels = torch.tensor(images, requires_grad=True)
    tensors = {key: torch.tensor(value) for key, value in given.items()}
    logits = net(pixels)
    loss = objective(logits, tensors)
    (expected,) = torch.autograd.grad(loss.sum(), pixels)
    np.testing.assert_allclose(answer.grad, expected.numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(answer.loss, loss.detach().numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(answer.logits, logits.detach().numpy(), rtol=0, atol=1e-12)


def test_each_images_gradient_is_its_own():
    teacher, given = FrozenNetwork(network().double()), context(np.float64)
    images = UINT8.astype(np.float64) / 255
    together = teacher.loss_and_grad(images, AugmentorObjective(4.0, 1.0, 0.3), given)
    alone = teacher.loss_and_grad(
        images[2:3], AugmentorObjective(4.0, 1.0, 0.3), {key: value[2:3] for key, value in given.items()}
    )
    np.testing.assert_allclose(alone.grad[0], together.grad[2], rtol=0, atol=1e-12)


def test_the_objective_is_evaluated_on_float32_logits_under_bfloat16():
    teacher = FrozenNetwork(network(), dtype="bfloat16")
    answer = teacher.loss_and_grad(UINT8, LabelCrossEntropy(), context())
    assert answer.logits.dtype == answer.loss.dtype == answer.grad.dtype == np.float32
    labels = torch.tensor(context()["labels"])
    expected = losses.cross_entropy(torch.tensor(answer.logits), labels)
    np.testing.assert_allclose(answer.loss, expected.numpy(), rtol=1e-6)


def test_read_only_arrays_are_taken():
    images = UINT8.copy()
    images.setflags(write=False)
    FrozenNetwork(network()).logits(images)


def test_precision_is_part_of_the_identity():
    net = network()
    assert FrozenNetwork(net).identity() != FrozenNetwork(net, dtype="bfloat16").identity()
    with pytest.raises(ValueError, match="want a dtype of float32, bfloat16, float16"):
        FrozenNetwork(net, dtype="int8")


def test_another_teacher_is_refused_on_a_resume():
    first, second = LocalPool(FrozenNetwork(network(0))), LocalPool(FrozenNetwork(network(1)))
    identity = check_identity(first, None)
    assert check_identity(first, identity) == identity
    with pytest.raises(TeacherError, match="the run began with"):
        check_identity(second, identity)
