import pytest
import torch

from hard_ray.augmentors.vae import LatentPerturbation
from hard_ray.config.augmentor import VaeAugmentor
from tests.augmentors.made import Halving, images_for, make


def built(**settings: object) -> LatentPerturbation:
    torch.manual_seed(0)
    config = VaeAugmentor(autoencoder={"model": "none"}, noise_channels=2, hidden_dim=8, **settings)
    return LatentPerturbation(config, Halving(), img_size=20)


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
