"""HARD-Policy: its draws, its prior, replay, and the random policy that is its control."""

import math
import warnings
from collections import Counter

import pytest
import torch

from hard_ray.augmentors import learned_policy
from hard_ray.augmentors.base import AugmentationInput
from hard_ray.augmentors.learned_policy import LearnedPolicy, RandomPolicy
from hard_ray.config.augmentor import (
    CutmixAugmentor,
    LearnedPolicyAugmentor,
    PickAugmentor,
    PolicyOperations,
    RandomPolicyAugmentor,
    SequenceAugmentor,
    by_prior,
    has_prior,
)
from hard_ray.config.loader import load_config
from hard_ray.config.run import as_control

NONE = {
    **{f"max_{name}": 0.0 for name in ("shift", "rotation", "shear", "brightness", "hue", "sharpness", "blur")},
    **{f"max_{name}": 0.0 for name in ("gaussian_noise", "shot_noise", "sparse_noise", "haze", "erasing")},
    **{f"max_{name}": 1.0 for name in ("scale", "contrast", "saturation", "gamma", "pixelation")},
    "flip": False,
}
"""No operation at all, for a test to add one."""


def learned(*, channels: int = 3, size: int = 12, spread: float = 0.5, **config: object) -> LearnedPolicy:
    """A policy that has left its start by `spread`."""
    torch.manual_seed(0)
    settings = LearnedPolicyAugmentor(**{"noise_dim": 8, "hidden_dim": 8, "replay": 0.0, **config})
    made = LearnedPolicy(settings, in_chans=channels, img_size=size)
    torch.nn.init.normal_(made.net.last.weight, std=spread)
    return made


def random(**config: object) -> RandomPolicy:
    return RandomPolicy(RandomPolicyAugmentor(**config), in_chans=3, img_size=12)


def batch(augmentor: RandomPolicy, rows: int = 8, size: int = 12, channels: int = 3) -> AugmentationInput:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(rows, channels, size, size, generator=generator)
    return AugmentationInput(images, torch.randn(rows, augmentor.noise_dim, generator=generator))


def test_the_prior_draws_uniform_magnitudes_and_each_operation_as_often():
    augmentor = random(operations=3.0)
    given = batch(augmentor, rows=4000)
    magnitudes, choices = augmentor._drawn(given, augmentor.distribution(given))
    assert len(augmentor.operations) == 19
    low = torch.tensor([each.low for each in augmentor.operations])
    high = torch.tensor([each.high for each in augmentor.operations])
    uniform = (magnitudes - low) / (high - low)
    torch.testing.assert_close(uniform.mean(dim=0), torch.full((19,), 0.5), rtol=0, atol=0.03)
    torch.testing.assert_close(uniform.var(dim=0), torch.full((19,), 1 / 12), rtol=0.08, atol=0)
    assert set(choices.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(choices.mean(dim=0), torch.full((19,), 3 / 19), rtol=0, atol=0.03)
    assert choices.sum(dim=1).mean().item() == pytest.approx(3.0, abs=0.1)


def test_more_operations_than_there_are_leave_each_a_chance_of_not_being_applied():
    augmentor = random(operations=100.0)
    chances = augmentor.samples(batch(augmentor))["p_hue"]
    torch.testing.assert_close(chances, torch.full_like(chances, 0.9))


def test_a_learned_policy_begins_with_the_images_and_the_loss_of_its_prior():
    augmentor, control = learned(spread=0.0), random()
    given = batch(augmentor)
    view = augmentor.augment(given)
    assert view.prior is not None
    assert abs(view.prior.item()) < 1e-6
    drawn = control(given.with_noise(given.noise[:, : control.noise_dim]))
    torch.testing.assert_close(view.images, drawn, rtol=0, atol=1e-4)
    assert not torch.equal(view.images, given.images)


def test_the_prior_is_its_formula():
    augmentor = learned(lambda_p=0.7).double()
    given = batch(augmentor)
    given = AugmentationInput(given.images.double(), given.noise.double())
    found = augmentor.present(given)
    p, p0, total = found.logit.sigmoid().mean(dim=0), 3 / 19, 0.0
    for k in range(19):
        m = found.mean[:, k].mean()
        v = (found.log_deviation[:, k].exp() ** 2 + found.mean[:, k] ** 2).mean() - m**2
        total += 0.5 * (v + m**2 - 1 - v.log())
        total += p[k] * (p[k] / p0).log() + (1 - p[k]) * ((1 - p[k]) / (1 - p0)).log()
    prior = augmentor.augment(given).prior
    assert prior is not None
    torch.testing.assert_close(prior, 0.7 * total, rtol=1e-9, atol=0)
    assert learned(lambda_p=0.0).augment(batch(augmentor)).prior is None


def after_training(lambda_p: float) -> tuple[float, float]:
    """Mean and probability of noise that began at its least, after updates that seek images without noise."""
    augmentor = learned(spread=0.0, lambda_p=lambda_p, operations=0.5, **{**NONE, "max_gaussian_noise": 0.2})
    with torch.no_grad():
        augmentor.net.last.bias.copy_(torch.tensor([-5.0, 0.0, -4.0]))
    optimizer = torch.optim.AdamW(augmentor.parameter_groups())
    given = batch(augmentor, rows=32)
    for _ in range(150):
        view = augmentor.augment(given)
        loss = (view.images - given.images).square().mean() + (0.0 if view.prior is None else view.prior)
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = 0.05
        optimizer.step()
    found = augmentor.present(given)
    return found.mean.mean().item(), found.logit.sigmoid().mean().item()


def test_the_prior_pulls_a_saturated_policy_back_and_without_it_it_stays():
    mean, chance = after_training(0.1)
    assert abs(mean) < 0.5
    assert chance == pytest.approx(0.5, abs=0.1)
    mean, chance = after_training(0.0)
    assert mean < -4.0
    assert chance < 0.05


def test_both_ways_to_apply_an_operation_agree_and_no_image_depends_on_another(monkeypatch: pytest.MonkeyPatch):
    augmentor = learned(operations=6.0)
    given = batch(augmentor)
    with torch.no_grad():
        by_rows = augmentor(given)
        alone = augmentor(AugmentationInput(given.images[3:4], given.noise[3:4]))
        monkeypatch.setattr(learned_policy, "_on_host", lambda _: False)
        blended = augmentor(given)
        alone_blended = augmentor(AugmentationInput(given.images[3:4], given.noise[3:4]))
    torch.testing.assert_close(by_rows, blended, rtol=0, atol=1e-4)
    torch.testing.assert_close(augmentor.augment(given).images, blended, rtol=0, atol=1e-4)
    torch.testing.assert_close(alone, by_rows[3:4], rtol=0, atol=1e-4)
    torch.testing.assert_close(alone_blended, blended[3:4], rtol=0, atol=1e-4)


def test_the_gradient_of_a_choice_is_that_of_the_sigmoid_at_its_temperature():
    augmentor = learned(spread=0.0, gate_temperature=0.5, **{**NONE, "max_haze": 0.8})
    given = batch(augmentor, rows=1)
    augmentor.augment(given).images.sum().backward()
    magnitudes, _ = augmentor._drawn(given, augmentor.present(given))
    apply, patterns = augmentor.operations[0].apply, augmentor.fields.patterns(given.noise[:, 2:16])
    assert apply is not None
    hazed = apply(given.images, magnitudes[:, 0], patterns)
    eta = torch.special.log_ndtr(given.noise[0, 1]) - torch.special.log_ndtr(-given.noise[0, 1])
    soft = ((augmentor.prior_logit + eta) / 0.5).sigmoid()
    expected = (hazed - given.images).sum() * soft * (1 - soft) / 0.5
    torch.testing.assert_close(augmentor.net.last.bias.grad[2], expected, rtol=1e-4, atol=0)


def test_strength_scales_magnitudes():
    full, half = learned(), learned(strength=0.5)
    given = batch(full)
    for name, values in half.samples(given).items():
        factor = 1.0 if name.startswith("p_") else 0.5
        torch.testing.assert_close(values, factor * full.samples(given)[name])


def test_a_policy_without_operations_is_the_identity_and_learns_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of a layer without values
        augmentor = learned(**NONE)
    given = batch(augmentor)
    assert augmentor(given) is given.images
    assert augmentor.augment(given).images is given.images
    assert augmentor.parameter_groups() == []


@pytest.mark.parametrize("condition", ["noise", "image"])
def test_a_policy_looks_at_the_image_if_it_is_to(condition: str):
    augmentor = learned(condition=condition, size=40)
    given = batch(augmentor, size=40)
    darker = AugmentationInput(0.3 * given.images, given.noise)
    same = torch.equal(augmentor.present(given).mean, augmentor.present(darker).mean)
    assert same == (condition == "noise")


def test_grey_images_have_no_colour_to_change():
    augmentor = learned(channels=1)
    assert len(augmentor.operations) == 17
    found = augmentor(batch(augmentor, channels=1))
    assert found.shape == (8, 1, 12, 12)
    assert not {"hue", "log_saturation"} & augmentor.samples(batch(augmentor, channels=1)).keys()


def with_history(states: int, **config: object) -> LearnedPolicy:
    """A policy whose earlier states have other and other means."""
    augmentor = learned(spread=0.0, replay=0.5, history=4, remember_every=1, **config)
    with torch.no_grad():
        for state in range(states):
            augmentor.net.last.bias[0] = 0.1 * (state + 1)
            augmentor.remember()
        augmentor.net.last.bias[0] = -1.0
    return augmentor


def test_half_of_the_students_images_are_drawn_for_by_earlier_states():
    augmentor = with_history(3)
    given = batch(augmentor, rows=2000)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of operations without a rule for many states
        found = Counter(round(value, 4) for value in augmentor.distribution(given).mean[:, 0].tolist())
    assert set(found) == {-1.0, 0.1, 0.2, 0.3}
    assert 900 < found[-1.0] < 1100
    assert all(270 < found[value] < 400 for value in (0.1, 0.2, 0.3))
    assert set(augmentor.present(given).mean[:, 0].tolist()) == {-1.0}


def test_an_earlier_state_does_what_it_did_after_a_resume_too():
    augmentor = learned(replay=1.0, history=4, remember_every=1)
    given = batch(augmentor)
    before = augmentor.present(given)
    augmentor.remember()
    with torch.no_grad():
        augmentor.net.last.bias.add_(1.0)
        augmentor.net.hidden.weight.mul_(2.0)
    for found, expected in zip(augmentor.distribution(given).parts(), before.parts(), strict=True):
        torch.testing.assert_close(found, expected)
    fresh = learned(replay=1.0, history=4, remember_every=1)
    fresh.load_state_dict(augmentor.state_dict())
    assert torch.equal(fresh(given), augmentor(given))


def test_the_control_draws_from_the_prior_in_a_sequence_and_under_pick_too():
    policy = LearnedPolicyAugmentor(max_rotation=10.0, operations=2.0, lambda_p=0.3)
    prior = by_prior(policy)
    assert prior == RandomPolicyAugmentor(max_rotation=10.0, operations=2.0)
    chain = SequenceAugmentor(augmentors=(policy, CutmixAugmentor()))
    assert by_prior(chain) == SequenceAugmentor(augmentors=(prior, CutmixAugmentor()))
    assert by_prior(PickAugmentor(augmentor=chain)) == PickAugmentor(augmentor=by_prior(chain))
    assert all(has_prior(each) for each in (policy, chain, PickAugmentor(augmentor=policy)))
    assert not has_prior(prior)
    config = load_config(preset="digits", overrides=["augmentor={kind: policy, max_rotation: 10.0}"])
    assert as_control(config, "random").augmentor == RandomPolicyAugmentor(max_rotation=10.0)
    assert PolicyOperations.model_fields.keys() <= LearnedPolicyAugmentor.model_fields.keys()


def test_angles_and_shifts_have_the_units_of_hard_affine():
    bounds = learned(max_rotation=90.0, max_shift=0.5).bounds_of_samples()
    assert bounds["rotation"] == pytest.approx((-math.pi / 2, math.pi / 2))
    assert bounds["shift_x"] == (-1.0, 1.0)
    assert bounds["p_flip"] == (0.0, 1.0)
    assert "flip" not in bounds
