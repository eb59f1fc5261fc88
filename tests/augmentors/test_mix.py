import pytest
import torch

from hard_ray.augmentors.base import AugmentationInput
from hard_ray.augmentors.partners import partners, shares
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
