import numpy as np
import pytest

from hard_ray.evaluation.corruptions import NAMES, WITH_OWN_SEED, Corruption, sample_of

corruptions = pytest.importorskip("imagecorruptions.corruptions")


def pictures(count: int = 4, channels: int = 1, side: int = 28) -> np.ndarray:
    ramp = np.linspace(20, 220, side * side).reshape(1, 1, side, side)
    offsets = np.arange(count * channels).reshape(count, channels, 1, 1)
    return (ramp + offsets).astype(np.uint8)


@pytest.mark.parametrize("name", NAMES)
def test_a_corruption_is_a_function_of_image_and_sample_id_alone(name: str):
    images, ids, change = pictures(channels=3, side=32), np.array([5, 6, 7, 5]), Corruption(name, 3)
    images[3] = images[0]
    np.random.seed(1)
    together = change(images, ids)
    np.random.seed(2)
    assert np.array_equal(together[3], together[0])  # the same image and id, elsewhere in the batch
    backwards = change(images[::-1], ids[::-1])[::-1]
    assert np.array_equal(together, backwards)
    assert np.array_equal(together[1:2], change(images[1:2], ids[1:2]))
    assert together.shape == images.shape
    assert together.dtype == np.uint8
    assert not np.array_equal(together, images)


@pytest.mark.parametrize("name", [*WITH_OWN_SEED, "gaussian_noise", "fog", "frost", "snow", "elastic_transform"])
def test_another_sample_id_or_severity_draws_anew(name: str):
    image = pictures(count=1, side=32)
    one = Corruption(name, 3)(image, np.array([1]))
    assert not np.array_equal(one, Corruption(name, 3)(image, np.array([2])))
    assert not np.array_equal(one, Corruption(name, 4)(image, np.array([1])))


def test_numpys_global_state_is_left_as_it_was():
    np.random.seed(3)
    expected = np.random.random(3)
    np.random.seed(3)
    Corruption("shot_noise", 3)(pictures(), np.arange(4))
    assert np.array_equal(np.random.random(3), expected)


def test_contrast_is_the_longhand_one():
    images = pictures(channels=3, side=32)
    exact = images / 255.0
    mean = exact.mean(axis=(2, 3), keepdims=True)
    expected = np.clip((exact - mean) * 0.2 + mean, 0, 1) * 255  # the paper's factor at severity 3
    assert np.abs(Corruption("contrast", 3)(images, np.arange(4)) - expected).max() <= 1


@pytest.mark.parametrize("side", [9, 28, 31])
def test_small_images_are_padded_with_their_edge_and_cut_back(side: int):
    images = pictures(count=2, side=side)
    before = (32 - side) // 2
    padded = np.pad(images, ((0, 0), (0, 0), *2 * ((before, 32 - side - before),)), "edge")
    inner = slice(before, before + side)
    for name in ("defocus_blur", "gaussian_noise"):
        change, ids = Corruption(name, 3), np.arange(2)
        assert np.array_equal(change(images, ids), change(padded, ids)[..., inner, inner])


def test_noise_on_grey_images_is_as_strong_as_on_colour_ones():
    grey, colour = (np.full((64, channels, 32, 32), 128, dtype=np.uint8) for channels in (1, 3))
    change, ids = Corruption("gaussian_noise", 3), np.arange(64)
    expected = 255 * 0.18  # the paper's standard deviation at severity 3
    assert change(grey, ids).std() == pytest.approx(expected, rel=0.02)
    assert change(colour, ids).std() == pytest.approx(expected, rel=0.02)


def test_an_empty_batch_stays_empty():
    images = pictures()[:0]
    assert Corruption("fog", 3)(images, np.arange(0)).shape == images.shape


def test_the_sample_is_the_first_of_a_permutation_so_a_larger_one_holds_a_smaller():
    rows = np.arange(100, 400)
    small, large = sample_of(rows, 20, seed=0), sample_of(rows, 50, seed=0)
    assert np.array_equal(small, large[:20])
    assert len(set(large.tolist())) == 50
    assert set(large.tolist()) <= set(rows.tolist())
    assert not np.array_equal(small, np.sort(small))
    assert not np.array_equal(small, sample_of(rows, 20, seed=1))
    assert np.array_equal(np.sort(sample_of(rows, 1000, seed=0)), rows)
    assert sample_of(rows, None, seed=0) is rows
