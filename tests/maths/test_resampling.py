"""Interpolation with gradients that have the same bits at every call: values and gradients are torch's."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hard_ray.maths import resampling
from hard_ray.maths.resampling import resize, sample


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "_is_exact", lambda tensor: tensor.requires_grad)


def gradient_of(made: Tensor, leaf: Tensor) -> Tensor:
    torch.manual_seed(1)
    return torch.autograd.grad((made * torch.randn_like(made)).sum(), leaf)[0]


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_samples_and_the_gradient_to_their_places_are_torchs(padding: str):
    torch.manual_seed(0)
    images, grid = torch.rand(3, 2, 7, 5).double(), (2.4 * torch.rand(3, 6, 4, 2) - 1.2).double().requires_grad_()
    wanted = F.grid_sample(images, grid, padding_mode=padding, align_corners=False)
    found = sample(images, grid, padding=padding)
    assert torch.equal(found, wanted)
    assert torch.equal(gradient_of(found, grid), gradient_of(wanted, grid))
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [(4, 11), (9, 3), (7, 5), (14, 20)])
def test_resized_images_and_the_gradient_to_them_are_torchs(mode: str, antialias: bool, size: tuple[int, int]):
    torch.manual_seed(0)
    images = torch.rand(2, 3, 7, 5).double().requires_grad_()
    wanted = F.interpolate(images, size=size, mode=mode, align_corners=False, antialias=antialias)
    found = resize(images, size, mode=mode, antialias=antialias)
    assert torch.equal(found, wanted)
    assert torch.allclose(gradient_of(found, images), gradient_of(wanted, images), atol=1e-12)


def test_elsewhere_the_gradient_is_torchs_own():
    images = torch.rand(1, 1, 4, 4, requires_grad=True)
    assert "Upsample" in type(resize(images, (8, 8), mode="bilinear").grad_fn).__name__
    grid = torch.zeros(1, 2, 2, 2, requires_grad=True)
    assert "GridSampler" in type(sample(images, grid, padding="zeros").grad_fn).__name__
