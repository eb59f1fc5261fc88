"""What holds for every kind of augmentor."""

import pytest
import torch

from hard_ray.augmentors.base import AugmentationInput
from tests.augmentors.made import KINDS, images_for, make


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def test_strength_zero_returns_the_input_tensor_itself_and_learns_nothing(kind: str):
    augmentor = make(kind, strength=0.0)
    given = images_for(augmentor)
    view = augmentor.augment(given)
    assert view.images is given.images
    assert view.sources is None
    assert augmentor(given) is given.images
    assert augmentor.parameter_groups() == []


def test_half_the_strength_changes_less(kind: str):
    def change(strength: float) -> float:
        augmentor = make(kind, strength=strength)
        given = images_for(augmentor)
        return (augmentor(given) - given.images).abs().mean().item()

    assert 0 < change(0.05) < change(0.5) < change(1.0)


def test_shape_and_range_are_kept(kind: str):
    for channels, size in ((1, 20), (3, 14)):
        augmentor = make(kind, channels=channels, img_size=size)
        given = images_for(augmentor, channels=channels, size=size)
        found = augmentor(given)
        assert found.shape == given.images.shape
        assert found.min() >= 0
        assert found.max() <= 1
        assert not torch.equal(found, given.images)


def test_the_same_images_and_noise_give_the_same_bits_and_other_noise_others(kind: str):
    augmentor = make(kind)
    given = images_for(augmentor)
    assert torch.equal(augmentor(given), make(kind)(given))
    other = AugmentationInput(given.images, given.noise.flip(dims=(0,)))
    assert not torch.equal(augmentor(given), augmentor(other))


def test_the_gradient_reaches_everything_that_the_optimiser_is_given(kind: str):
    augmentor = make(kind)
    view = augmentor.augment(images_for(augmentor))
    loss = view.images.square().sum()
    if view.sources is not None:
        loss = loss + view.sources.square().sum()
    loss.backward()
    parameters = [parameter for group in augmentor.parameter_groups() for parameter in group["params"]]
    assert parameters
    for parameter in parameters:
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "policy"])  # whose choices have no gradient
def test_the_gradient_passes_gradcheck(kind: str):
    augmentor = make(kind, img_size=6).double()
    given = images_for(augmentor, rows=3, size=6, dtype=torch.float64)
    generator = torch.Generator().manual_seed(2)
    weights = [p for group in augmentor.parameter_groups() for p in group["params"]]
    weight = torch.rand(given.images.shape, generator=generator, dtype=torch.float64)

    def loss(*_: torch.Tensor) -> torch.Tensor:
        view = augmentor.augment(given)
        kept = 0.0 if view.sources is None else view.sources.square().sum()
        return (weight * view.images).sum() + kept

    assert torch.autograd.gradcheck(loss, weights, eps=1e-7, atol=1e-4, fast_mode=True)


def test_sources_say_what_an_image_is_made_of(kind: str):
    augmentor = make(kind)
    given = images_for(augmentor)
    sources = augmentor.augment(given).sources
    if kind in ("affine", "policy", "vae"):
        assert sources is None
        return
    assert sources is not None
    assert (sources >= 0).all()
    torch.testing.assert_close(sources.sum(dim=1), torch.ones(8))
    assert ((sources > 0).sum(dim=1) == (2 if kind == "mix" else sources.gt(0).sum(dim=1))).all()


def test_statistics_are_those_of_the_samples_which_stay_within_their_bounds(kind: str):
    augmentor = make(kind)
    given = images_for(augmentor, rows=64)
    samples, bounds = augmentor.samples(given), augmentor.bounds_of_samples()
    assert samples.keys() == bounds.keys()
    for name, values in samples.items():
        assert values.shape == (64,)
        low, high = bounds[name]
        assert low - 1e-5 <= values.min() <= values.max() <= high + 1e-5, name
    statistics = augmentor.statistics(given)
    assert set(statistics) == {f"{name}_{what}" for name in samples for what in ("mean", "std")}
    for name, values in samples.items():
        assert statistics[f"{name}_mean"].item() == pytest.approx(values.mean().item())


def test_the_weights_of_a_checkpoint_bring_the_augmentor_back(kind: str):
    augmentor = make(kind)
    with torch.no_grad():
        for group in augmentor.parameter_groups():
            for parameter in group["params"]:
                parameter.add_(0.1)
    fresh = make(kind)
    fresh.load_state_dict(augmentor.state_dict())
    given = images_for(augmentor)
    assert torch.equal(fresh(given), augmentor(given))
