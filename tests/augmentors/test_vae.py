import pytest
import torch

from hard_ray.augmentors.vae import LatentPerturbation
from hard_ray.config.augmentor import VaeAugmentor
from hard_ray.errors import ModelError
from hard_ray.networks.autoencoders.principal import Principal, fit_principal
from tests.augmentors.made import Halving, images_for, make


def built(*, channels: int = 1, principal: Principal | None = None, **settings: object) -> LatentPerturbation:
    torch.manual_seed(0)
    config = VaeAugmentor(autoencoder={"model": "none"}, noise_channels=2, hidden_dim=8, **settings)
    coder = Halving(channels)
    coder.principal = principal
    return LatentPerturbation(config, coder, img_size=20)


def fitted() -> Principal:
    """Directions of the latents of random images."""
    images = torch.rand(64, 1, 20, 20, generator=torch.Generator().manual_seed(7))
    return fit_principal(Halving().encode(images), count=5)


def test_the_residual_keeps_what_the_decoder_cannot_draw():
    augmentor = built(max_delta=0.01)
    given = images_for(augmentor)
    coder = augmentor.autoencoder
    reconstruction = coder.decode(coder.encode(given.images), (20, 20))
    assert (augmentor(given) - given.images).abs().max() < 0.01
    plain = built(max_delta=0.01, residual=False)
    assert (plain(given) - reconstruction).abs().max() < 0.01
    assert (plain(given) - given.images).abs().max() > 0.1


def test_the_images_are_those_of_the_equation():
    augmentor = built(strength=0.5)
    given = images_for(augmentor)
    coder = augmentor.autoencoder
    latent = coder.encode(given.images)
    moved = latent + 0.5 * augmentor.delta(latent, given.noise)
    expected = given.images + coder.decode(moved, (20, 20)) - coder.decode(latent, (20, 20))
    torch.testing.assert_close(augmentor(given), expected.clamp(0, 1))


def test_no_cell_moves_by_more_than_max_delta_deviations():
    augmentor = built(max_delta=0.5, init_spread=20.0)
    given = images_for(augmentor, rows=32)
    delta = augmentor.delta(augmentor.autoencoder.encode(given.images), given.noise)
    assert delta.abs().max() <= 0.5 * 0.25 + 1e-6
    assert delta.abs().max() > 0.95 * 0.5 * 0.25


def test_a_frozen_autoencoder_is_neither_trained_nor_kept_in_checkpoints():
    augmentor = built()
    assert not any("gain" in name for name in augmentor.state_dict())
    assert not augmentor.autoencoder.gain.requires_grad
    assert len(augmentor.parameter_groups()) == 1
    assert augmentor.double().autoencoder.gain.dtype == torch.float64


def test_fine_tuning_trains_and_keeps_it():
    augmentor = built(finetune_lr=1e-4)
    assert any("gain" in name for name in augmentor.state_dict())
    own, tuned = augmentor.parameter_groups()
    assert (own["lr"], tuned["lr"]) == (1e-3, 1e-4)
    augmentor(images_for(augmentor)).square().sum().backward()
    assert augmentor.autoencoder.gain.grad.abs() > 0


@pytest.mark.parametrize("size", [20, 15])
def test_the_start_has_the_spread_that_was_asked_for(size: int):
    augmentor = make("vae", img_size=size + size % 2)
    given = images_for(augmentor, rows=64, size=size + size % 2)
    change = augmentor.samples(given)["latent_change"]
    assert 0.2 < change.mean() < 0.8


def test_each_channel_has_its_own_bounds():
    augmentor = built(channels=3, max_delta=[0.1, 1.0, 0.5], init_spread=20.0)
    given = images_for(augmentor, rows=32, channels=3)
    delta = augmentor.delta(augmentor.autoencoder.encode(given.images), given.noise)
    largest = delta.abs().amax(dim=(0, 2, 3)) / 0.25
    torch.testing.assert_close(largest, torch.tensor([0.1, 1.0, 0.5]), atol=0, rtol=0.05)
    assert (largest <= torch.tensor([0.1, 1.0, 0.5]) + 1e-6).all()


def test_the_images_change_by_no_more_than_their_bounds_which_follow_the_strength():
    for strength in (0.5, 1.0):
        augmentor = built(channels=3, max_delta=20.0, max_change=[0.1, 0.02, 0.3], strength=strength)
        given = images_for(augmentor, rows=32, channels=3)
        largest = (augmentor(given) - given.images).abs().amax(dim=(0, 2, 3))
        bounds = strength * torch.tensor([0.1, 0.02, 0.3])
        assert (largest <= bounds + 1e-6).all()
        assert (largest > 0.9 * bounds).all()


def test_a_small_change_passes_its_bound_as_it_is():
    given = images_for(built())
    bound, free = built(max_delta=0.01, max_change=0.5), built(max_delta=0.01)
    torch.testing.assert_close(bound(given), free(given), atol=1e-6, rtol=0)


def test_along_directions_the_latent_moves_in_their_span_within_the_bounds():
    principal = fitted()
    augmentor = built(directions=3, principal=principal, max_delta=[0.5, 2.0, 1.0], init_spread=20.0)
    given = images_for(augmentor, rows=64)
    delta = augmentor.delta(augmentor.autoencoder.encode(given.images), given.noise).flatten(1)
    rows = principal.directions[:3].flatten(1)
    moved = delta @ (rows / rows.square().sum(dim=1, keepdim=True)).T
    torch.testing.assert_close(moved @ rows, delta, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(moved.abs().amax(dim=0), torch.tensor([0.5, 2.0, 1.0]), atol=0, rtol=0.05)


def test_along_directions_everything_holds_that_holds_for_cells():
    given = images_for(built(directions=4, principal=fitted()), rows=6)
    assert built(directions=4, principal=fitted(), strength=0.0)(given) is given.images
    augmentor = built(directions=4, principal=fitted(), strength=0.5, max_change=0.2)
    assert augmentor.net.mean.shape == (1, 10, 10)
    assert not any("mean" in name or "directions" in name for name in augmentor.state_dict())
    augmentor(given).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for group in augmentor.parameter_groups() for p in group["params"])
    samples, bounds = augmentor.samples(given), augmentor.bounds_of_samples()
    assert bounds == {"latent_change": (0.0, 0.5), "pixel_change": (0.0, pytest.approx(0.1))}
    assert all((values <= bounds[name][1] + 1e-6).all() for name, values in samples.items())


def test_the_gradient_along_directions_passes_gradcheck():
    augmentor = built(directions=2, principal=fitted(), max_change=0.3).double()
    given = images_for(augmentor, rows=3, dtype=torch.float64)
    weights = [p for group in augmentor.parameter_groups() for p in group["params"]]
    assert torch.autograd.gradcheck(lambda *_: augmentor(given).square().sum(), weights, atol=1e-4, fast_mode=True)


def test_the_network_sees_the_images_own_coordinates():
    augmentor = built(directions=4, principal=fitted())
    given = images_for(augmentor, rows=6)
    latent = augmentor.autoencoder.encode(given.images)
    same = given.noise[:1].expand(6, -1)
    assert augmentor.net.raw(latent, same).std(dim=0).min() > 0
    along = latent[:1] + fitted().directions[0]
    seen = []
    augmentor.net[0].register_forward_hook(lambda _, given, __: seen.append(given[0]))
    augmentor.net.raw(torch.cat([latent[:1], along]), given.noise[:2])
    torch.testing.assert_close(seen[0][1, :4] - seen[0][0, :4], torch.tensor([1.0, 0, 0, 0]), atol=1e-4, rtol=0)


def test_what_the_autoencoder_lacks_is_a_message():
    with pytest.raises(ModelError, match=r"directions=2, .*\(1, 10, 10\): the autoencoder's folder has 0 directions"):
        built(directions=2)
    with pytest.raises(ModelError, match=r"has 5 directions of shape \(1, 10, 10\); .*ask for fewer"):
        built(directions=6, principal=fitted())
    other = Principal(torch.zeros(1, 8, 8), torch.zeros(5, 1, 8, 8))
    with pytest.raises(ModelError, match=r"5 directions of shape \(1, 8, 8\); .*the size that it is trained on"):
        built(directions=2, principal=other)
    with pytest.raises(ModelError, match=r"max_delta has 2 values for 1 latent channels; give one number, or one for"):
        built(max_delta=[0.1, 0.2])
    with pytest.raises(ModelError, match="max_change has 2 values for 1 colour channels"):
        built(max_change=[0.1, 0.2])


def test_a_bound_of_the_change_needs_the_residual_form():
    with pytest.raises(ValueError, match="which residual=false does not add; leave it unset, or set residual=true"):
        VaeAugmentor(autoencoder={"model": "none"}, residual=False, max_change=0.1)


@pytest.mark.parametrize("along", [None, 3])
def test_the_prior_is_the_divergence_of_the_values_before_the_tanh(along: int | None):
    augmentor = built(directions=along, principal=fitted(), lambda_p=0.3, channels=1, init_spread=2.0)
    given = images_for(augmentor, rows=32)
    view = augmentor.augment(given)
    assert torch.equal(view.images, augmentor(given))
    raw = augmentor.net.raw(augmentor.autoencoder.encode(given.images), given.noise).double()
    columns = raw.flatten()[None] if along is None else raw.T
    expected = 0.0
    for column in columns:
        mean, deviation = column.mean(), column.std(correction=0)
        normal = torch.distributions.Normal(torch.zeros(()).double(), torch.ones(()).double())
        expected += torch.distributions.kl_divergence(torch.distributions.Normal(mean, deviation), normal)
    assert view.prior is not None
    assert view.prior.item() == pytest.approx(0.3 * float(expected), rel=1e-4)
    assert augmentor.view(given).prior is None


def test_the_prior_alone_brings_spread_and_mean_to_the_standard_normal():
    augmentor = built(directions=4, principal=fitted(), lambda_p=1.0, init_spread=0.1, lr=0.02)
    given = images_for(augmentor, rows=256)
    optimizer = torch.optim.AdamW(augmentor.parameter_groups())
    first = augmentor.augment(given).prior
    for _ in range(60):
        prior = augmentor.augment(given).prior
        assert prior is not None
        optimizer.zero_grad()
        prior.backward()
        optimizer.step()
    assert prior < 0.05 < first
    raw = augmentor.net.raw(augmentor.autoencoder.encode(given.images), given.noise)
    torch.testing.assert_close(raw.std(dim=0), torch.ones(4), atol=0.2, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"lambda_p": 0.1, "strength": 0.0}])
def test_without_a_weight_or_at_strength_zero_there_is_no_prior(settings: dict):
    augmentor = built(**settings)
    assert augmentor.augment(images_for(augmentor)).prior is None
