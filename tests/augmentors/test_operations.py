"""Operations of HARD-Policy: the identity at 0, the range, finite gradients, and what each does to an image."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from hard_ray.augmentors.operations import Fields, Operation, Patterns, operations_of
from hard_ray.config.augmentor import PolicyOperations

SIZE = 16
ALL = {each.name: each for each in operations_of(PolicyOperations(), in_chans=3, img_size=SIZE)}
APPLIED = [name for name, each in ALL.items() if each.apply is not None]


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def patterns(rows: int, dtype: torch.dtype = torch.float32) -> Patterns:
    noise = torch.randn(rows, 14, generator=torch.Generator().manual_seed(1))
    return Fields(3, SIZE).to(dtype).patterns(noise.to(dtype))


def applied(name: str, images: torch.Tensor, magnitude: float | torch.Tensor) -> torch.Tensor:
    apply = ALL[name].apply
    assert apply is not None
    magnitudes = torch.as_tensor(magnitude, dtype=images.dtype).expand(len(images))
    return apply(images, magnitudes, patterns(len(images), images.dtype))


def special(kind: str, dtype: torch.dtype) -> torch.Tensor:
    noise = random(3, 3, SIZE, SIZE)
    found = {
        "black": torch.zeros_like(noise),
        "white": torch.ones_like(noise),
        "grey": torch.full_like(noise, 0.5),
        "nearly grey": 0.5 + 1e-7 * noise,
        "of 8 bits": (255 * noise).round() / 255,
    }
    return found[kind].to(dtype)


@pytest.mark.parametrize("name", [name for name in APPLIED if name != "flip"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_magnitude_of_zero_leaves_an_image_as_it_is(name: str, dtype: torch.dtype):
    for kind in ("black", "white", "of 8 bits"):
        images = special(kind, dtype)
        torch.testing.assert_close(applied(name, images, 0.0), images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", APPLIED)
@pytest.mark.parametrize("kind", ["black", "white", "grey", "nearly grey", "of 8 bits"])
def test_values_stay_in_range_and_gradients_are_finite_in_both_precisions(name: str, kind: str):
    operation = ALL[name]
    for dtype in (torch.float32, torch.float64):
        for magnitude in (operation.low, 0.0, 0.3 * operation.high, operation.high):
            images = special(kind, dtype).requires_grad_()
            magnitudes = torch.full((3,), magnitude, dtype=dtype, requires_grad=True)
            assert operation.apply is not None
            found = operation.apply(images, magnitudes, patterns(3, dtype))
            assert found.dtype == dtype
            assert found.shape == images.shape
            assert -1e-6 <= found.min() <= found.max() <= 1 + 1e-6
            loss = (found * random(*found.shape, seed=2, dtype=dtype)).sum()
            grads = torch.autograd.grad(loss, [images, magnitudes], allow_unused=name == "flip")
            assert all(grad.isfinite().all() for grad in grads if grad is not None)


@pytest.mark.parametrize("name", [name for name in APPLIED if name not in ("flip", "sparse_noise")])
def test_the_gradient_of_the_magnitude_is_that_of_the_operation(name: str):
    images, high = 0.2 + 0.6 * random(2, 3, SIZE, SIZE, dtype=torch.float64), ALL[name].high
    magnitudes = torch.tensor([0.31 * high, 0.57 * high], dtype=torch.float64, requires_grad=True)
    weight = random(2, 3, SIZE, SIZE, seed=3, dtype=torch.float64)

    def loss(values: torch.Tensor) -> torch.Tensor:
        return (weight * applied(name, images, values)).sum()

    assert torch.autograd.gradcheck(loss, magnitudes, eps=1e-7, atol=1e-4)
    assert torch.autograd.grad(loss(magnitudes), magnitudes)[0].abs().min() > 0


@pytest.mark.parametrize("name", APPLIED)
def test_no_operation_reads_a_value_on_the_host(name: str):
    with FakeTensorMode():
        images = torch.rand(2, 3, SIZE, SIZE, requires_grad=True)
        magnitudes = torch.rand(2, requires_grad=True)
        drawn = Patterns((torch.rand(2, 3, SIZE, SIZE),) * 3, torch.rand(2, 1, SIZE, SIZE), torch.rand(2, 2))
        apply = ALL[name].apply
        assert apply is not None
        apply(images, magnitudes, drawn).sum().backward()


@pytest.mark.parametrize("name", APPLIED)
def test_an_image_does_not_depend_on_the_others(name: str):
    images, magnitudes, drawn = random(4, 3, SIZE, SIZE), ALL[name].high * random(4, seed=5), patterns(4)
    apply = ALL[name].apply
    assert apply is not None
    alone = apply(images[2:3], magnitudes[2:3], drawn.rows(torch.tensor([2])))
    torch.testing.assert_close(alone, apply(images, magnitudes, drawn)[2:3], rtol=0, atol=1e-6)


def test_colour_operations_do_what_their_names_say():
    images = 0.25 + 0.5 * random(2, 3, SIZE, SIZE)
    torch.testing.assert_close(applied("brightness", images, 0.1), images + 0.1)
    mean = (
        (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=1).mean(dim=(1, 2))[:, None, None, None]
    )
    torch.testing.assert_close(applied("log_contrast", images, math.log(0.5)), mean + 0.5 * (images - mean))
    torch.testing.assert_close(applied("log_gamma", images, math.log(2.0)), images**2)
    faded = applied("log_saturation", images, math.log(1e-4))
    assert (faded.amax(dim=1) - faded.amin(dim=1)).max() < 1e-3
    red = torch.tensor([1.0, 0.0, 0.0])[None, :, None, None].expand(1, 3, SIZE, SIZE)
    turned = applied("hue", red, math.radians(120))
    torch.testing.assert_close(turned, red.roll(1, dims=1), rtol=0, atol=1e-5)


def test_blur_spreads_a_point_by_its_deviation_in_pixels_and_sharpness_undoes_smoothness():
    wide = operations_of(PolicyOperations(max_blur=0.1), in_chans=3, img_size=32)
    blur = next(each for each in wide if each.name == "blur")
    assert blur.high == pytest.approx(3.2)
    point = torch.zeros(1, 3, 32, 32)
    point[..., 16, 16] = 1.0
    assert blur.apply is not None
    spread = blur.apply(point, torch.tensor([2.0]), patterns(1))[0, 0]
    assert spread.sum().item() == pytest.approx(1.0, abs=1e-5)
    places = torch.arange(32.0) - 16
    assert (spread.sum(dim=1) * places**2).sum().sqrt().item() == pytest.approx(2.0, rel=0.02)
    images = 0.4 + 0.2 * random(1, 3, SIZE, SIZE)
    assert applied("sharpness", images, 1.0).std() > 1.2 * images.std()


def test_pixelation_makes_flat_squares_and_keeps_the_mean():
    images = random(1, 3, SIZE, SIZE)
    found = applied("log_pixelation", images, math.log(2.0))
    expected = torch.nn.functional.avg_pool2d(images, 2)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        torch.testing.assert_close(found[..., row::2, column::2], expected)


def test_noise_has_the_deviation_of_its_magnitude():
    grey = torch.full((400, 3, SIZE, SIZE), 0.5)
    assert (applied("gaussian_noise", grey, 0.1) - grey).std().item() == pytest.approx(0.1, rel=0.05)
    shot = applied("shot_noise", grey, 0.1) - grey
    assert shot.std().item() == pytest.approx(0.1 * 0.5**0.5, rel=0.05)
    sparse = applied("sparse_noise", grey, 0.2)
    assert (sparse == 0).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert (sparse == 1).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert ((sparse != 0) & (sparse != 1)).float().mean().item() == pytest.approx(0.8, abs=0.02)


def test_haze_only_lightens_and_not_alike_everywhere():
    images = 0.5 * random(8, 3, SIZE, SIZE)
    found = applied("haze", images, 0.8) - images
    assert found.min() >= 0
    assert found.std() > 0.05


def test_erasing_covers_the_square_of_its_side():
    black = torch.zeros(1, 3, SIZE, SIZE)
    operation = ALL["erasing"]
    drawn = Patterns(patterns(1).normal, patterns(1).clouds, torch.tensor([[0.5, 0.5]]))
    assert operation.apply is not None
    for side in (0.01, 0.25, 0.4):
        found = operation.apply(black, torch.tensor([side]), drawn)
        assert 2 * found[0, 0].sum().item() == pytest.approx((side * SIZE) ** 2, rel=1e-4)


def names(**settings: object) -> list[str]:
    config = PolicyOperations(**settings)
    return [each.name for each in operations_of(config, in_chans=3, img_size=SIZE)]


def test_a_bound_without_room_leaves_its_operation_out():
    assert set(names()) - set(names(max_rotation=0.0, max_gamma=1.0, flip=False)) == {"rotation", "log_gamma", "flip"}
    assert set(names()) - set(names(max_shift=0.0)) == {"shift_x", "shift_y"}
    grey = [each.name for each in operations_of(PolicyOperations(), in_chans=1, img_size=SIZE)]
    assert set(names()) - set(grey) == {"log_saturation", "hue"}


def bounds(**settings: object) -> dict[str, Operation]:
    return {each.name: each for each in operations_of(PolicyOperations(**settings), in_chans=3, img_size=32)}


def test_bounds_are_widened_up_to_what_an_operation_can_do():
    found = bounds()
    assert found["shift_x"].high == 2 * 0.25
    assert found["hue"].high == pytest.approx(math.radians(60))
    assert found["log_pixelation"].high == pytest.approx(math.log(4))
    twice = bounds(widen=2.0)
    assert twice["log_contrast"].high == pytest.approx(2 * math.log(4))
    assert twice["gaussian_noise"].high == 0.4
    most = bounds(widen=8.0)
    assert (most["hue"].high, most["brightness"].high, most["shift_x"].low) == (math.pi, 1.0, -2.0)
    assert most["shear"].high == pytest.approx(math.tan(math.radians(75)))
    assert most["log_pixelation"].high == math.log(32)


def test_the_largest_pixelation_is_one_square():
    operation = bounds(widen=8.0)["log_pixelation"]
    images = random(1, 3, 32, 32)
    assert operation.apply is not None
    found = operation.apply(images, torch.tensor([operation.high]), patterns(1))
    torch.testing.assert_close(found, images.mean(dim=(2, 3), keepdim=True).expand_as(images))
