import pytest
import torch

from hard_ray.augmentors.base import AugmentationInput
from hard_ray.augmentors.policies import Policy
from hard_ray.config.augmentor import AutoAugmentor, PolicyAugmentor, RandAugmentor, TrivialAugmentor

CONFIGS = (AutoAugmentor, RandAugmentor, TrivialAugmentor)


def made(strength: float = 1.0, config: type[PolicyAugmentor] = TrivialAugmentor, per: str = "image") -> Policy:
    return Policy(config(strength=strength, per=per))


def batch(rows: int = 32, channels: int = 3) -> AugmentationInput:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (rows, channels, 20, 20), generator=generator)
    return AugmentationInput(pixels.float() / 255.0, torch.randn(rows, 3, generator=generator))


def changed(found: torch.Tensor, given: AugmentationInput) -> torch.Tensor:
    return (found != given.images).flatten(1).any(dim=1)


def test_strength_zero_returns_the_input_tensor_itself():
    given = batch()
    assert made(0.0)(given) is given.images


def test_there_is_nothing_to_learn():
    assert list(made().parameters()) == []


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_same_noise_gives_the_same_bits_whatever_the_global_state_and_the_batch(channels: int, config: type):
    given, augmentor = batch(channels=channels), made(config=config)
    torch.manual_seed(1)
    found = augmentor(given)
    torch.manual_seed(2)
    rows = torch.arange(31, -1, -3)
    assert torch.equal(augmentor(AugmentationInput(given.images[rows], given.noise[rows])), found[rows])
    other = AugmentationInput(given.images, given.noise.roll(1, dims=0))
    assert not torch.equal(augmentor(other), found)


def test_the_global_state_is_left_as_it_was():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    made()(batch())
    assert torch.equal(torch.rand(3), expected)


def test_the_pixels_stay_bytes_in_range_and_the_images_given_stay_as_they_are():
    given = batch()
    before = given.images.clone()
    found = made()(given)
    assert torch.equal(found, (found * 255).round() / 255)
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(given.images, before)
    assert changed(found, given).float().mean() > 0.7


def test_strength_is_the_probability_that_an_image_is_changed():
    generator = torch.Generator().manual_seed(0)
    given = AugmentationInput(batch(rows=1).images.expand(600, -1, -1, -1), torch.randn(600, 3, generator=generator))
    full, half = changed(made()(given), given), changed(made(0.3)(given), given)
    assert half.float().mean().item() == pytest.approx(0.3 * full.float().mean().item(), abs=0.06)
    assert (full | ~half).all()


def test_many_different_things_happen_to_one_image():
    generator = torch.Generator().manual_seed(0)
    given = AugmentationInput(batch(rows=1).images.expand(300, -1, -1, -1), torch.randn(300, 3, generator=generator))
    assert len(torch.unique(made()(given).flatten(1), dim=0)) > 100


@pytest.mark.parametrize("config", CONFIGS)
def test_one_draw_for_the_batch_does_the_same_to_every_image(config: type):
    generator = torch.Generator().manual_seed(0)
    same = AugmentationInput(batch(rows=1).images.expand(6, -1, -1, -1), torch.randn(6, 3, generator=generator))
    for _ in range(5):
        found = made(config=config, per="batch")(same)
        assert (found == found[:1]).all()
        same = same.with_noise(torch.randn(6, 3, generator=generator))


def test_one_draw_for_the_batch_is_that_of_its_first_image_alone():
    given = batch(rows=4)
    alone = AugmentationInput(given.images[:1], given.noise[:1])
    assert torch.equal(made(per="batch")(given)[:1], made(per="image")(alone))
