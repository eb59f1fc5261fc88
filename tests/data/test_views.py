import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hard_ray.config.data import ImageFolderData
from hard_ray.data.layout import IMAGE_SUFFIXES
from hard_ray.data.readers import FORMATS
from hard_ray.data.views import DRAWS_PER_IMAGE, UnreadableImageError, decode, eval_view, train_view


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def config(**values: object) -> ImageFolderData:
    return ImageFolderData(path=Path("/"), **{"img_size": 16, **values})


def gradient(width: int = 24, height: int = 20) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=2)
    return Image.fromarray(pixels.astype(np.uint8))


def draws(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(DRAWS_PER_IMAGE)


@pytest.mark.parametrize(
    "picture",
    [
        encoded(gradient(), "PNG"),
        encoded(gradient().convert("L"), "PNG"),
        encoded(gradient().convert("1"), "PNG"),
        encoded(gradient().quantize(16), "PNG"),
        encoded(gradient().quantize(16), "GIF", transparency=0),
        encoded(gradient().convert("RGBA"), "PNG"),
        encoded(gradient().convert("LA"), "PNG"),
        encoded(gradient().convert("CMYK"), "JPEG"),
        encoded(gradient(), "WEBP"),
        encoded(gradient(), "BMP"),
        encoded(gradient(), "TIFF"),
        encoded(gradient(), "PPM"),
        encoded(gradient(), "JPEG2000"),
        encoded(gradient(), "AVIF"),
        encoded(gradient(), "MPO", save_all=True, append_images=[gradient()]),
        encoded(Image.fromarray((np.arange(480).reshape(20, 24) * 100).astype(np.uint16)), "PNG"),
        np.asarray(gradient()),
        np.asarray(gradient().convert("L")),
        gradient(),
    ],
    ids=lambda p: type(p).__name__,
)
@pytest.mark.parametrize("in_chans", [1, 3])
def test_every_mode_becomes_grey_or_rgb(picture: object, in_chans: int):
    image = decode(picture, in_chans=in_chans)
    assert image.mode == ("L" if in_chans == 1 else "RGB")
    assert eval_view(image, config()).shape == ({1: 1, 3: 3}[in_chans], 16, 16)


def test_sixteen_bits_keep_their_upper_half():
    pixels = np.array([[0, 255, 256], [32768, 65280, 65535]], dtype=np.uint16)
    image = decode(encoded(Image.fromarray(pixels), "PNG"), in_chans=1)
    assert np.asarray(image).tolist() == [[0, 0, 1], [128, 255, 255]]


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees
    upright = decode(encoded(gradient(), "PNG", exif=exif), in_chans=3)
    assert np.array_equal(np.asarray(upright), np.rot90(np.asarray(gradient()), -1))


@pytest.mark.parametrize(
    "picture",
    [
        b"",
        b"no image at all",
        encoded(gradient(), "JPEG")[:200],
        encoded(gradient(200, 200), "PNG")[:-400],
        OSError("gone"),
    ],
)
def test_what_cannot_be_decoded_says_so(picture: object):
    with pytest.raises(UnreadableImageError):
        decode(picture, in_chans=3)


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadableImageError, match="DecompressionBomb"):
        decode(encoded(gradient(), "PNG"), in_chans=3)


def test_what_is_decoded_is_what_the_suffixes_say():
    assert {Image.registered_extensions()[suffix] for suffix in IMAGE_SUFFIXES} == set(FORMATS)


@pytest.mark.parametrize("size", [(1, 500_000), (500_000, 1)])
@pytest.mark.parametrize("settings", [{}, {"crop": "none"}, {"crop": "none", "crop_pct": 1.0}])
def test_no_view_of_a_thin_picture_is_made_by_way_of_a_large_one(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], settings: dict
):
    plain, made = Image.Image.resize, []

    def resize(self: Image.Image, size: tuple[int, int], resample: int, box: tuple | None = None) -> Image.Image:
        rows = self.height if box is None else box[3] - box[1]
        made.append(size[0] * max(rows, size[1]))  # Pillow changes the width first
        assert made[-1] <= Image.MAX_IMAGE_PIXELS
        return plain(self, size, resample, box=box)

    monkeypatch.setattr(Image.Image, "resize", resize)
    image = decode(encoded(Image.new("RGB", size, (7, 8, 9)), "PNG"), in_chans=3)
    data = config(img_size=224, **settings)
    for view in (eval_view(image, data), train_view(image, data, draws())):
        assert view.reshape(3, -1).min(axis=1).tolist() == view.reshape(3, -1).max(axis=1).tolist() == [7, 8, 9]
    assert len(made) >= 2


@pytest.mark.parametrize("size", [(9, 900), (900, 9)])
@pytest.mark.parametrize("crop_pct", [0.6, 0.875])
def test_the_middle_of_a_thin_picture_gives_the_view_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], crop_pct: float
):
    image = gradient(*size)
    whole = eval_view(image, config(crop_pct=crop_pct))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    assert np.abs(eval_view(image, config(crop_pct=crop_pct)).astype(int) - whole).max() <= 1


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_an_image_or_an_unreadable_one(data: bytes):
    with contextlib.suppress(UnreadableImageError):
        decode(b"\x89PNG\r\n\x1a\n" + data, in_chans=3)


def test_the_evaluation_view_is_the_centre_of_the_resized_image():
    image = gradient(64, 32)
    view = eval_view(image, config(crop_pct=0.5))
    expected = image.resize((64, 32)).crop((24, 8, 40, 24))
    assert np.array_equal(view, np.asarray(expected).transpose(2, 0, 1))


def test_a_training_view_is_a_function_of_its_draws():
    for crop in ("none", "padded", "resized"):
        settings_ = config(crop=crop, hflip=0.5)
        one, same, other = (train_view(gradient(), settings_, draws(seed)) for seed in (1, 1, 2))
        assert one.shape == (3, 16, 16)
        assert one.dtype == np.uint8
        assert np.array_equal(one, same)
        assert crop == "none" or not np.array_equal(one, other)


def test_the_flip_happens_as_often_as_it_should():
    image, flips = gradient(16, 16), 0
    plain = train_view(image, config(crop="none", hflip=0.0), draws())
    for seed in range(400):
        view = train_view(image, config(crop="none", hflip=0.25), draws(seed))
        flipped = np.array_equal(view, plain[:, :, ::-1])
        assert flipped or np.array_equal(view, plain)
        flips += flipped
    assert 70 < flips < 130


def test_a_padded_crop_moves_by_at_most_the_padding_and_fills_with_zeros():
    image = Image.fromarray(np.full((16, 16, 3), 200, dtype=np.uint8))
    seen = set()
    for seed in range(300):
        view = train_view(image, config(crop="padded", crop_padding=2, hflip=0.0), draws(seed))
        rows, columns = np.flatnonzero(view[0].any(1)), np.flatnonzero(view[0].any(0))
        assert len(rows) >= 14
        assert len(columns) >= 14
        seen.add((int(rows[0]), int(columns[0]), len(rows), len(columns)))
    assert len(seen) == 25


def test_a_resized_crop_keeps_to_its_scale_and_ratio():
    y, x = np.mgrid[:100, :100]
    image = Image.fromarray(np.stack([x, y, 0 * x], axis=2).astype(np.uint8))
    for seed in range(200):
        view = train_view(image, config(crop="resized", scale=(0.25, 0.5), hflip=0.0, img_size=32), draws(seed))
        width, height = np.ptp(view[0].astype(float)) + 1, np.ptp(view[1].astype(float)) + 1
        assert 0.2 * 1e4 < width * height < 0.55 * 1e4
        assert 0.65 < width / height < 1.5
