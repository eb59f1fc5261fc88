"""Flip, crop, Cutout, mixup and CutMix: what they do to pixels, and in what shares."""

import numpy as np
import pytest
import torch
from scipy import stats

from hard_ray.augmentors.base import AugmentationInput, Augmentor
from hard_ray.augmentors.build import build_augmentor
from hard_ray.augmentors.partners import beta
from hard_ray.config.augmentor import CropFlipAugmentor, CutmixAugmentor, CutoutAugmentor, FlipAugmentor, MixupAugmentor

CONFIGS = (FlipAugmentor, CropFlipAugmentor, CutoutAugmentor, MixupAugmentor, CutmixAugmentor)
MIXING = (MixupAugmentor, CutmixAugmentor)


def made(config: type, **settings: object) -> Augmentor:
    augmentor = build_augmentor(config(**settings), in_chans=3, img_size=16)
    assert augmentor is not None
    return augmentor


def batch(augmentor: Augmentor, rows: int = 12, seed: int = 1, size: tuple[int, int] = (16, 16)) -> AugmentationInput:
    generator = torch.Generator().manual_seed(seed)
    images = 0.1 + 0.8 * torch.rand(rows, 3, *size, generator=generator)
    return AugmentationInput(images, torch.randn(rows, augmentor.noise_dim, generator=generator))


def same_image(augmentor: Augmentor, rows: int, seed: int = 1) -> AugmentationInput:
    given = batch(augmentor, rows, seed)
    return AugmentationInput(given.images[:1].expand_as(given.images), given.noise)


@pytest.mark.parametrize("config", CONFIGS)
def test_strength_zero_returns_the_input_tensor_itself(config: type):
    augmentor = made(config, strength=0.0)
    given = batch(augmentor)
    assert augmentor(given) is given.images
    view = augmentor.view(given)
    assert view.images is given.images
    assert view.sources is None


@pytest.mark.parametrize("per", ["batch", "image"])
@pytest.mark.parametrize("config", CONFIGS)
def test_shape_and_range_are_kept_and_the_images_given_stay_as_they_are(config: type, per: str):
    augmentor = made(config, per=per)
    for seed in range(4):
        given = batch(augmentor, seed=seed)
        before = given.images.clone()
        found = augmentor(given)
        assert found.shape == before.shape
        assert found.min() >= 0
        assert found.max() <= 1
        assert torch.equal(given.images, before)


@pytest.mark.parametrize("config", [FlipAugmentor, CropFlipAugmentor, CutoutAugmentor])
def test_one_draw_for_the_batch_does_the_same_to_every_image_and_one_for_each_does_not(config: type):
    for seed in range(4):
        augmentor = made(config, per="batch")
        found = augmentor(same_image(augmentor, 6, seed))
        assert torch.equal(found, found[:1].expand_as(found))
    augmentor = made(config, per="image")
    found = augmentor(same_image(augmentor, 40))
    assert len(torch.unique(found.flatten(1), dim=0)) > 1


@pytest.mark.parametrize("config", CONFIGS)
def test_a_view_drawn_for_each_image_depends_on_its_own_noise_alone(config: type):
    augmentor = made(config, per="image")
    given = batch(augmentor)
    found = augmentor.view(given)
    noise = given.noise.clone()
    noise[3:, 1:] = noise[3:, 1:].flip(0)  # of the others; the first value pairs images
    other = augmentor.view(given.with_noise(noise))
    assert torch.equal(found.images[:3], other.images[:3])


def test_half_of_the_images_are_flipped_and_in_proportion_to_the_strength():
    for strength in (1.0, 0.4):
        augmentor = made(FlipAugmentor, per="image", strength=strength)
        given = same_image(augmentor, 2000)
        found = augmentor(given)
        mirrored = (found == given.images.flip(-1)).flatten(1).all(dim=1)
        assert ((found == given.images).flatten(1).all(dim=1) | mirrored).all()
        assert mirrored.float().mean().item() == pytest.approx(0.5 * strength, abs=0.04)


def test_a_crop_is_a_window_of_the_padded_image_mirrored_or_not():
    augmentor = made(CropFlipAugmentor, per="image")
    given = same_image(augmentor, 300)
    image = given.images[0]
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2))
    windows = {}
    for down in range(5):
        for right in range(5):
            window = padded[:, down : down + 16, right : right + 16]
            windows[window.numpy().tobytes()] = (down, right, False)
            windows[window.flip(-1).contiguous().numpy().tobytes()] = (down, right, True)
    seen = {windows[found.contiguous().numpy().tobytes()] for found in augmentor(given)}
    assert len(seen) == 50  # every window and its mirror image, and nothing else


def test_cutout_fills_a_square_of_the_size_in_the_paper_cut_off_at_the_border():
    augmentor = made(CutoutAugmentor, per="image", size=0.25)
    given = batch(augmentor, rows=500)
    found = augmentor(given)
    changed = (found != given.images).all(dim=1)
    assert (found.permute(0, 2, 3, 1)[changed] == 0.5).all()
    areas = changed.flatten(1).sum(dim=1)
    assert areas.max() == 16  # 4 x 4 of 16 x 16
    assert areas.min() == 4  # at a corner a quarter of it
    rows, columns = changed.any(dim=2).sum(dim=1), changed.any(dim=1).sum(dim=1)
    assert torch.equal(areas, rows * columns)


def test_strength_scales_the_area_that_cutout_and_cutmix_replace():
    def area(config: type, strength: float) -> float:
        augmentor = made(config, per="image", strength=strength)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(300, augmentor.noise_dim, generator=generator)
        noise[:, -2:] = 0.0  # in the middle, where the border cuts nothing off
        images = torch.rand(300, 1, 64, 64, generator=generator)
        return (augmentor(AugmentationInput(images, noise)) != images).float().mean().item()

    for config in (CutoutAugmentor, CutmixAugmentor):
        full = area(config, 1.0)
        assert area(config, 0.25) == pytest.approx(0.25 * full, rel=0.15)
        assert area(config, 0.5) == pytest.approx(0.5 * full, rel=0.1)


@pytest.mark.parametrize("per", ["batch", "image"])
def test_mixup_is_the_weighted_mean_that_its_sources_say(per: str):
    augmentor = made(MixupAugmentor, per=per)
    given = batch(augmentor)
    view = augmentor.view(given)
    longhand = torch.einsum("vb,bchw->vchw", view.sources, given.images)
    assert torch.allclose(view.images, longhand, atol=1e-6)
    own = view.sources.diagonal()
    assert (len(own.unique()) == 1) == (per == "batch")
    assert torch.equal(own, augmentor.samples(given)["own_share"])


def test_mixups_weight_is_one_less_strength_times_the_rest():
    full = made(MixupAugmentor, per="image")
    given = batch(full)
    half = made(MixupAugmentor, per="image", strength=0.5)
    expected = 1 - 0.5 * (1 - full.view(given).sources.diagonal())
    assert torch.allclose(half.view(given).sources.diagonal(), expected)


@pytest.mark.parametrize("per", ["batch", "image"])
def test_cutmix_pastes_one_box_of_the_partner_and_counts_its_pixels(per: str):
    augmentor = made(CutmixAugmentor, per=per)
    for seed in range(6):
        given = batch(augmentor, seed=seed, size=(16, 24))
        view = augmentor.view(given)
        for row, (image, shares) in enumerate(zip(view.images, view.sources, strict=True)):
            partner = next(number for number in shares.argsort(descending=True).tolist() if number != row)
            replaced = (image != given.images[row]).all(dim=0)
            assert torch.equal(image[:, replaced], given.images[partner][:, replaced])
            assert shares[row].item() == pytest.approx(1 - replaced.float().mean().item(), abs=1e-6)
            assert replaced.sum() == replaced.any(dim=0).sum() * replaced.any(dim=1).sum()


def test_the_share_outside_of_cutmixs_box_is_uniform_where_the_border_cuts_nothing_off():
    augmentor = made(CutmixAugmentor, per="image")
    count = 4000
    noise = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    noise[:, 2:] = 0.0  # the centre
    inside = augmentor._inside(AugmentationInput(torch.zeros(count, 1, 200, 200), noise))
    shares = 1 - inside.float().mean(dim=(1, 2, 3))
    assert stats.kstest(shares.numpy(), "uniform").statistic < 0.03


@pytest.mark.parametrize("config", MIXING)
def test_no_image_is_its_own_partner_and_every_image_is_a_partner_once(config: type):
    augmentor = made(config)
    sources = augmentor.view(batch(augmentor)).sources
    others = sources - sources.diagonal().diag()
    assert torch.allclose(sources.sum(dim=1), torch.ones(12))
    assert ((others > 0).sum(dim=1) == 1).all()
    assert ((others > 0).sum(dim=0) == 1).all()


@pytest.mark.parametrize("alpha", [0.4, 1.0, 3.0])
def test_shares_are_drawn_from_the_beta_distribution(alpha: float):
    draws = torch.from_numpy(np.random.default_rng(0).random(4000))
    assert stats.kstest(beta(draws, alpha).numpy(), stats.beta(alpha, alpha).cdf).statistic < 0.03
