from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hard_ray.augmentors.base import AugmentationInput
from hard_ray.augmentors.boxes import boxes
from hard_ray.augmentors.generated import Generated
from hard_ray.augmentors.partners import beta, partners
from hard_ray.config.augmentor import GeneratedAugmentor
from hard_ray.data.generated_set import read_manifest
from hard_ray.errors import DataError

JOINS = ["mixup", "cutmix", "either"]


def made(**settings: object) -> Generated:
    return Generated(GeneratedAugmentor(path="none", **settings))


def batch(augmentor: Generated, seed: int = 0, rows: int = 6) -> AugmentationInput:
    random = torch.Generator().manual_seed(seed)
    images, generated = torch.rand(2, rows, 3, 8, 8, generator=random)
    noise = torch.randn(rows, augmentor.noise_dim, generator=random)
    return AugmentationInput(images, noise, generated=generated)


def test_every_image_gives_way_to_its_generated_one():
    given = batch(made())
    view = made().view(given)
    assert torch.equal(view.images, given.generated)
    assert view.sources is None


@pytest.mark.parametrize("join", [None, "mixup"])
def test_at_strength_zero_the_input_tensor_itself_comes_back(join: str | None):
    augmentor = made(strength=0.0, join=join)
    given = batch(augmentor)
    assert augmentor.view(given).images is given.images
    without = AugmentationInput(given.images, given.noise)
    assert augmentor(without) is given.images


def test_strength_is_the_share_of_images_that_are_replaced_each_whole():
    augmentor = made(strength=0.3)
    given = batch(augmentor, rows=2000)
    found = augmentor(given)
    taken = (found == given.generated).flatten(1).all(dim=1)
    kept = (found == given.images).flatten(1).all(dim=1)
    assert (taken ^ kept).all()
    assert taken.float().mean().item() == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("join", JOINS)
@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_joined_views_are_twice_as_many_and_their_sources_add_up_to_one(join: str, strength: float):
    augmentor = made(join=join, strength=strength)
    for seed in range(5):
        view = augmentor.view(batch(augmentor, seed))
        assert view.images.shape == (12, 3, 8, 8)
        assert view.sources is not None
        assert view.sources.shape == (12, 6)
        assert (view.sources >= 0).all()
        torch.testing.assert_close(view.sources.sum(dim=1), torch.ones(12))


def test_joined_mixup_is_the_longhand_mixture():
    augmentor = made(join="mixup")
    given = batch(augmentor)
    view = augmentor.view(given)
    share = float(beta(torch.special.ndtr(given.noise[:1, 4]), 1.0))
    partner = partners(torch.cat([given.noise[:, 1], given.noise[:, 2]])).tolist()
    pool = [*given.images, *given.generated]
    for row, other in enumerate(partner):
        torch.testing.assert_close(view.images[row], share * pool[row] + (1 - share) * pool[other])
        expected = torch.zeros(6)
        expected[row % 6] += share
        expected[other % 6] += 1 - share
        torch.testing.assert_close(view.sources[row], expected)


def test_joined_cutmix_puts_one_box_of_the_partner_into_each_and_counts_its_pixels():
    augmentor = made(join="cutmix")
    given = batch(augmentor, seed=3)
    view = augmentor.view(given)
    draws = torch.special.ndtr(given.noise[:1, 3:])
    share = beta(draws[:, 1], 1.0)
    (inside,) = boxes(draws[:, 2:], (1 - share).sqrt(), (8, 8))
    partner = partners(torch.cat([given.noise[:, 1], given.noise[:, 2]])).tolist()
    pool = [*given.images, *given.generated]
    assert 0 < inside.float().mean() < 1
    own = 1 - inside.float().mean()
    for row, other in enumerate(partner):
        assert torch.equal(view.images[row], torch.where(inside, pool[other], pool[row]))
        expected = torch.zeros(6)
        expected[row % 6] += own
        expected[other % 6] += 1 - own
        torch.testing.assert_close(view.sources[row], expected)


def test_either_is_one_of_the_two_for_the_whole_batch():
    kinds = set()
    for seed in range(12):
        either, mixup, cutmix = (made(join=join) for join in ("either", "mixup", "cutmix"))
        given = batch(either, seed)
        found = either.view(given).images
        same = [torch.equal(found, other.view(given).images) for other in (mixup, cutmix)]
        assert sum(same) == 1
        kinds.add(same.index(True))
    assert kinds == {0, 1}


def test_a_batch_without_generated_images_is_refused():
    given = batch(made())
    with pytest.raises(RuntimeError, match="has no generated images"):
        made()(AugmentationInput(given.images, given.noise))


def test_a_folder_without_a_set_says_how_to_make_one(tmp_path: Path):
    with pytest.raises(DataError, match="holds no manifest.json of a generated set; make one with `hardray generate`"):
        read_manifest(tmp_path, {})
