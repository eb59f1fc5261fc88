import math
from collections import Counter

import pytest
import torch

from hard_ray.augmentors.affine import PARAMETERS, Affine, matrices, transform
from hard_ray.augmentors.base import AugmentationInput
from hard_ray.config.augmentor import AffineAugmentor


def made(**config: object) -> Affine:
    torch.manual_seed(0)
    return Affine(AffineAugmentor(**{"noise_dim": 16, "hidden_dim": 32, "replay": 0.0, **config}))


def batch(rows: int = 8, size: int = 20, dtype: torch.dtype = torch.float32) -> AugmentationInput:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(rows, 1, size, size, generator=generator, dtype=dtype)
    return AugmentationInput(images, torch.randn(rows, 16, generator=generator, dtype=dtype))


def transformed(parameters: dict[str, float], images: torch.Tensor) -> torch.Tensor:
    row = torch.tensor([[parameters.get(name, 0.0) for name in PARAMETERS]], dtype=images.dtype)
    grid = torch.nn.functional.affine_grid(matrices(row), list(images.shape), align_corners=False)
    return torch.nn.functional.grid_sample(images, grid, align_corners=False)


def test_strength_zero_returns_the_input_tensor_itself():
    given = batch()
    assert made(strength=0.0)(given) is given.images


def test_the_range_is_kept_and_the_shape_too():
    given = batch()
    found = made()(given)
    assert found.shape == given.images.shape
    assert found.min() >= 0
    assert found.max() <= 1
    assert not torch.equal(found, given.images)


def test_the_same_seed_and_noise_give_the_same_bits():
    assert torch.equal(made()(batch()), made()(batch()))
    other = AugmentationInput(batch().images, batch().noise.roll(1, dims=0))
    assert not torch.equal(made()(batch()), made()(other))


def test_each_image_depends_on_its_own_noise_alone():
    given, augmentor = batch(), made()
    alone = augmentor(AugmentationInput(given.images[3:4], given.noise[3:4]))
    torch.testing.assert_close(alone, augmentor(given)[3:4])


def test_the_gradient_reaches_every_parameter():
    augmentor = made()
    augmentor(batch()).square().sum().backward()
    for name, parameter in augmentor.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_gradient_passes_gradcheck():
    augmentor = made(hidden_dim=4).double()
    given = batch(rows=2, size=6, dtype=torch.float64)
    weights = tuple(augmentor.parameters())

    def loss(*values: torch.Tensor) -> torch.Tensor:
        named = dict(zip((name for name, _ in augmentor.named_parameters()), values, strict=True))
        return torch.func.functional_call(augmentor, named, (given,)).square().sum()

    assert torch.autograd.gradcheck(loss, weights, eps=1e-7, atol=1e-4, nondet_tol=0.0)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_samples_stay_within_the_bounds_and_use_them(strength: float):
    augmentor = made(strength=strength, init_spread=3.0)
    noise = torch.randn(4000, 16, generator=torch.Generator().manual_seed(0))
    sampled = augmentor.sample(noise).abs()
    bounds = strength * torch.tensor([0.5, 0.5, math.radians(30), math.log(1.25), math.tan(math.radians(15))])
    assert (sampled <= bounds * 1.0001).all()
    assert (sampled.max(dim=0).values > 0.9 * bounds).all()


def test_the_start_is_wide_and_leans_to_no_side():
    for seed in range(5):
        torch.manual_seed(seed)
        augmentor = Affine(AffineAugmentor())
        noise = torch.randn(4000, augmentor.noise_dim, generator=torch.Generator().manual_seed(0))
        relative = augmentor.sample(noise) / augmentor.bounds
        assert (relative.std(dim=0) > 0.5).all()
        assert (relative.mean(dim=0).abs() < 0.15).all()


def test_a_positive_shift_moves_the_content_right_and_down():
    images = torch.zeros(1, 1, 16, 16)
    images[0, 0, 5, 4] = 1.0
    moved = transformed({"shift_x": 2 * 3 / 16, "shift_y": 2 * 2 / 16}, images)
    assert moved[0, 0, 7, 7] == pytest.approx(1.0, abs=1e-5)
    assert moved.sum() == pytest.approx(1.0, abs=1e-5)


def test_a_quarter_turn_is_a_quarter_turn():
    images = torch.rand(1, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    turned = transformed({"rotation": math.pi / 2}, images)
    torch.testing.assert_close(turned, torch.rot90(images, -1, dims=(2, 3)), atol=1e-5, rtol=0)


def test_magnification_enlarges():
    images = torch.zeros(1, 1, 32, 32)
    images[..., 12:20, 12:20] = 1.0
    assert transformed({"log_scale": math.log(2)}, images).sum() == pytest.approx(4 * 64, rel=0.05)


def test_the_matrix_is_the_inverse_of_shift_after_rotation_after_shear_after_magnification():
    shift_x, shift_y, rotation, log_scale, shear = 0.2, -0.1, 0.4, 0.3, 0.25
    row = torch.tensor([[shift_x, shift_y, rotation, log_scale, shear]], dtype=torch.float64)
    cos, sin, size = math.cos(rotation), math.sin(rotation), math.exp(log_scale)
    turn = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
    slant = torch.tensor([[1, shear], [0, 1]], dtype=torch.float64)
    forward = torch.eye(3, dtype=torch.float64)
    forward[:2, :2] = turn @ slant * size
    forward[:2, 2] = torch.tensor([shift_x, shift_y])
    torch.testing.assert_close(matrices(row)[0], forward.inverse()[:2])


def test_padding_decides_what_comes_in_from_outside():
    white = AugmentationInput(torch.ones(64, 1, 20, 20), torch.randn(64, 16))
    assert made(padding="zeros")(white).min() == 0
    assert made(padding="border")(white).min().item() == pytest.approx(1.0, abs=1e-5)


def test_statistics_are_those_of_the_samples():
    augmentor, given = made(), batch()
    found = augmentor.statistics(given)
    sampled = augmentor.sample(given.noise)
    assert set(found) == {f"{name}_{what}" for name in PARAMETERS for what in ("mean", "std")}
    assert found["rotation_mean"].item() == pytest.approx(sampled[:, 2].mean().item())


def with_history(states: int, **config: object) -> Affine:
    """An augmentor whose earlier states shift further and further to the right."""
    augmentor = made(replay=0.5, history=4, remember_every=1, **config)
    with torch.no_grad():
        for state in range(states):
            augmentor.net[2].weight.zero_()
            augmentor.net[2].bias.copy_(torch.tensor([0.1 * (state + 1), 0.0, 0.0, 0.0, 0.0]))
            augmentor.remember()
        augmentor.net[2].bias.fill_(-1.0)
    return augmentor


def replayed(augmentor: Affine, rows: int = 2000) -> torch.Tensor:
    noise = torch.randn(rows, augmentor.noise_dim, generator=torch.Generator().manual_seed(5))
    return augmentor._replayed(noise)[:, 0]


def test_half_of_the_students_images_are_transformed_by_earlier_states():
    augmentor = with_history(3)
    shifts = replayed(augmentor)
    found = Counter(round(value, 4) for value in shifts.tolist())
    present = round(0.5 * math.tanh(-1.0), 4)
    past = [round(0.5 * math.tanh(0.1 * state), 4) for state in (1, 2, 3)]
    assert set(found) == {present, *past}
    assert 900 < found[present] < 1100
    assert all(270 < found[value] < 400 for value in past)


def test_the_augmentors_own_phase_sees_the_present_state_alone():
    augmentor = with_history(3)
    given = AugmentationInput(batch().images, torch.randn(8, augmentor.noise_dim))
    expected = transform(given.images, augmentor.sample(given.noise), padding="zeros")
    assert torch.equal(augmentor.augment(given).images, expected)
    assert not torch.equal(augmentor(given), expected)


def test_a_full_history_gives_up_one_state_at_random():
    augmentor = with_history(9)
    states = augmentor.past[:, -5].tolist()
    assert len(set(states)) == 4
    assert max(states) > 0.45
    assert states == with_history(9).past[:, -5].tolist()


def test_earlier_states_are_part_of_a_checkpoint():
    augmentor, fresh = with_history(3), made(replay=0.5, history=4, remember_every=1)
    fresh.load_state_dict(augmentor.state_dict())
    assert torch.equal(replayed(fresh), replayed(augmentor))


def test_an_earlier_state_does_what_it_did():
    augmentor = made(replay=1.0, history=4, remember_every=1)
    noise = torch.randn(32, augmentor.noise_dim, generator=torch.Generator().manual_seed(6))
    before = augmentor.sample(noise).detach()
    augmentor.remember()
    with torch.no_grad():
        augmentor.net[2].bias.add_(1.0)
    torch.testing.assert_close(augmentor._replayed(noise), before)


def test_the_prior_is_the_divergence_of_the_values_before_the_tanh_from_normal_ones():
    augmentor, given = made(lambda_p=0.5).double(), batch(rows=500, dtype=torch.float64)
    view = augmentor.augment(given)
    assert torch.equal(view.images, augmentor(given))
    expected = 0.0
    for raw in augmentor.net(given.noise).T:
        expected += 0.5 * (raw.var(correction=0) + raw.mean() ** 2 - 1 - raw.var(correction=0).log())
    torch.testing.assert_close(view.prior, 0.5 * expected)
    with torch.no_grad():
        augmentor.net[-1].bias.add_(2.0)
    assert augmentor.augment(given).prior > 0.5 * 5 * 2.0**2 / 4
    assert made().augment(batch()).prior is None  # without lambda_p
