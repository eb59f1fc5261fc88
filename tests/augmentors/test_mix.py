import pytest
import torch

from hard_ray.augmentors.base import AugmentationInput
from hard_ray.augmentors.mix import Mix
from hard_ray.augmentors.partners import partners, shares
from hard_ray.config.augmentor import MixAugmentor
from tests.augmentors.made import images_for, make


@pytest.mark.parametrize("rows", [2, 3, 17, 64])
def test_partners_are_a_permutation_without_a_fixed_point(rows: int):
    found = partners(torch.randn(rows, generator=torch.Generator().manual_seed(rows)))
    assert sorted(found.tolist()) == list(range(rows))
    assert not (found == torch.arange(rows)).any()


def test_a_single_image_is_its_own_partner():
    assert partners(torch.zeros(1)).tolist() == [0]
    augmentor = make("mix")
    given = images_for(augmentor, rows=1)
    torch.testing.assert_close(augmentor(given), given.images)


def test_equal_noise_still_pairs_everybody():
    assert partners(torch.zeros(4)).tolist() == [1, 2, 3, 0]


def test_shares_have_two_entries_a_row():
    found = shares(torch.tensor([0.75, 0.5, 1.0]), torch.tensor([2, 0, 1]))
    expected = torch.tensor([[0.75, 0.0, 0.25], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    assert torch.equal(found, expected)


def test_every_pixel_is_a_mixture_of_both_images_by_the_mask():
    augmentor = make("mix", strength=0.5)
    given = images_for(augmentor)
    mask, partner = augmentor.masks(given), partners(given.noise[:, 0])
    assert mask.min() >= 0.5
    expected = mask * given.images + (1 - mask) * given.images[partner]
    torch.testing.assert_close(augmentor(given), expected)
    own = augmentor.augment(given).sources.diagonal()
    torch.testing.assert_close(own, mask.mean(dim=(1, 2, 3)))


def test_the_mask_depends_on_both_images_and_on_noise():
    augmentor = make("mix")
    given = images_for(augmentor)
    before = augmentor.masks(given)
    partner = partners(given.noise[:, 0])[0].item()
    for changed in (0, partner):
        images = given.images.clone()
        images[changed] = 1 - images[changed]
        assert not torch.equal(augmentor.masks(AugmentationInput(images, given.noise))[0], before[0])
    noise = given.noise.clone()
    noise[0, 1:] += 1
    after = augmentor.masks(AugmentationInput(given.images, noise))
    assert not torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])


def test_masks_differ_at_the_start():
    augmentor = make("mix")
    own = augmentor.samples(images_for(augmentor, rows=256))["own_share"]
    assert own.std() > 0.05


def prior_longhand(augmentor: Mix, given: AugmentationInput) -> torch.Tensor:
    """The divergence of each cell's logits from N(0, init_spread^2), summed over the cells."""
    others = given.images[partners(given.noise[:, 0])]
    looks = augmentor.look(torch.cat([given.images, others], dim=1)).flatten(1)
    total = torch.zeros((), dtype=given.images.dtype)
    for cell in (looks + augmentor.draw(given.noise[:, 1:])).T:
        mean, deviation, spread = cell.mean(), cell.std(correction=0), augmentor.config.init_spread
        ratio = (deviation / spread) ** 2
        total = total + 0.5 * (ratio + (mean / spread) ** 2 - 1 - ratio.log())
    return total


def test_the_prior_draws_masks_back_to_those_of_the_start():
    torch.manual_seed(0)
    augmentor = Mix(MixAugmentor(mask_size=2, hidden_dim=8, init_spread=3.0, lambda_p=0.5), in_chans=1).double()
    given = images_for(augmentor, rows=500, dtype=torch.float64)
    start = augmentor.augment(given).prior
    torch.testing.assert_close(start, 0.5 * prior_longhand(augmentor, given))
    with torch.no_grad():
        augmentor.draw.weight.mul_(0.1)
        augmentor.draw.bias.add_(4.0)
    narrow = augmentor.augment(given).prior
    assert 0 < start < 0.2
    assert narrow > 4
    optimizer = torch.optim.Adam(augmentor.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        augmentor.augment(given).prior.backward()
        optimizer.step()
    assert augmentor.augment(given).prior < start
    assert make("mix").augment(images_for(make("mix"))).prior is None  # without lambda_p
