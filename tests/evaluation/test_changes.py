import numpy as np
import pytest

from hard_ray.evaluation.changes import CORNERS, DiagonalShift, Rotation, Shift, Unchanged, corners_of, shift


def pictures(count: int = 6, channels: int = 1, side: int = 12) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, channels, side, side), dtype=np.uint8)


def test_a_shift_moves_by_whole_pixels_and_fills_with_zeros():
    images = np.arange(1, 26, dtype=np.uint8).reshape(1, 1, 5, 5)
    moved = shift(images, right=2, down=-1)
    expected = np.zeros_like(images)
    expected[..., :4, 2:] = images[..., 1:, :3]
    assert np.array_equal(moved, expected)
    assert np.array_equal(Shift(2, -1)(images, np.zeros(1, dtype=np.int64)), expected)
    assert shift(images, right=0, down=0) is images
    assert shift(images, right=9, down=0).max() == 0


def test_unchanged_images_are_the_images_given():
    images = pictures()
    assert Unchanged()(images, np.arange(6)) is images


@pytest.mark.parametrize("distance", [1, 3, 20])
def test_a_diagonal_shift_is_the_longhand_one(distance: int):
    images, ids = pictures(channels=3), np.array([4, 8, 15, 16, 23, 42])
    expected = np.zeros_like(images)
    for number, sample_id in enumerate(ids):
        right, down = CORNERS[corners_of(np.array([sample_id]))[0]]
        for y in range(12):
            for x in range(12):
                to_y, to_x = y + down * distance, x + right * distance
                if 0 <= to_y < 12 and 0 <= to_x < 12:
                    expected[number, :, to_y, to_x] = images[number, :, y, x]
    assert np.array_equal(DiagonalShift(distance)(images, ids), expected)


def test_the_corner_is_the_sample_ids_whatever_the_batch_and_all_four_are_equally_likely():
    ids = np.arange(40_000)
    corners = corners_of(ids)
    assert np.array_equal(corners[::-7], corners_of(ids[::-7]))
    shares = np.bincount(corners, minlength=4) / len(ids)
    assert shares == pytest.approx(4 * [0.25], abs=0.01)


def test_an_image_goes_to_the_same_corner_at_every_distance():
    images, ids = np.full((64, 1, 12, 12), 9, dtype=np.uint8), np.arange(64)
    empty = [DiagonalShift(distance)(images, ids) == 0 for distance in (1, 4)]
    assert (empty[1] | ~empty[0]).all()


def test_a_quarter_turn_is_a_quarter_turn_and_none_is_none():
    images, ids = pictures(), np.arange(6)
    assert np.array_equal(Rotation(90)(images, ids), np.rot90(images, axes=(2, 3)))
    assert np.array_equal(Rotation(0)(images, ids), images)


def test_a_turned_images_corners_are_zero_and_its_centre_stays():
    white = np.full((2, 1, 13, 13), 200, dtype=np.uint8)
    for degrees in (-45, 45):
        turned = Rotation(degrees)(white, np.arange(2))
        assert turned[..., [0, 0, -1, -1], [0, -1, 0, -1]].max() == 0
        assert (turned[..., 4:9, 4:9] == 200).all()
    dot = np.zeros((1, 1, 13, 13), dtype=np.uint8)
    dot[..., 6, 11] = 255  # to the right of the centre
    anticlockwise = Rotation(30)(dot, np.arange(1))
    assert anticlockwise[..., :6, :].sum() > 10 * anticlockwise[..., 7:, :].sum()


def test_an_image_is_turned_alike_alone_and_in_a_batch():
    images, ids = pictures(), np.arange(6)
    assert np.array_equal(Rotation(15)(images, ids)[2:3], Rotation(15)(images[2:3], ids[2:3]))
