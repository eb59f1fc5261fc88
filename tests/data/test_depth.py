"""Pictures with more than 8 bits, and of modes that Pillow converts badly or not at all."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image, ImageCms

from hard_ray.data.views import UnreadableImageError, decode
from tests.data.encoded import GREY, SIDE, encoded, pgm, png, tiff

WIDE = GREY.astype(np.uint16) * 257
COLOUR = np.stack([GREY, GREY.T, 255 - GREY], axis=2)
WIDE_COLOUR = COLOUR.astype(np.uint16) * 257


def packed(values: np.ndarray) -> bytes:
    """Pairs of 12 bits in three bytes."""
    one, other = values.ravel()[::2].astype(int), values.ravel()[1::2].astype(int)
    return np.stack([one >> 4, (one & 15) << 4 | other >> 8, other & 255], axis=1).astype(np.uint8).tobytes()


def scaled(largest: int) -> np.ndarray:
    return np.rint(GREY * (largest / 255)).astype(int)


@pytest.mark.parametrize(
    "picture",
    [
        pgm(WIDE, 65535),
        pgm(WIDE, 65535, "P2"),
        pgm(scaled(4095), 4095),
        pgm(scaled(1023), 1023),
        pgm(scaled(1023), 1023, "P2"),
        pgm(scaled(300), 300),
        encoded(Image.fromarray(WIDE), "PNG"),
        encoded(Image.fromarray(WIDE), "JPEG2000"),
        tiff(WIDE.astype("<u2").tobytes(), [16]),
        tiff(WIDE.astype(">u2").tobytes(), [16], order=">"),
        tiff((65535 - WIDE).astype("<u2").tobytes(), [16], photometric=0),
        tiff(packed(scaled(4095)), [12]),
        encoded(Image.fromarray(WIDE), "TIFF", compression="tiff_lzw"),
        encoded(Image.fromarray(WIDE), "TIFF", compression="tiff_adobe_deflate"),
        png(np.stack([WIDE, np.full_like(WIDE, 65535)], axis=2), 4),
        WIDE,
        Image.fromarray(WIDE),
        Image.fromarray(WIDE.astype(">u2")),
    ],
    ids=lambda picture: type(picture).__name__,
)
def test_a_grey_picture_of_more_bits_is_the_picture_of_eight(picture: object):
    for in_chans, expected in ((1, GREY), (3, np.stack([GREY] * 3, axis=2))):
        np.testing.assert_array_equal(np.asarray(decode(picture, in_chans=in_chans)), expected)


@pytest.mark.parametrize(
    "picture",
    [
        pgm(WIDE_COLOUR, 65535, "P6"),
        png(WIDE_COLOUR, 2),
        png(np.concatenate([WIDE_COLOUR, WIDE_COLOUR[..., :1]], axis=2), 6),
        tiff(WIDE_COLOUR.astype("<u2").tobytes(), [16, 16, 16]),
        tiff(WIDE_COLOUR.astype(">u2").tobytes(), [16, 16, 16], order=">"),
        tiff(COLOUR.transpose(2, 0, 1).tobytes(), [8, 8, 8], planar=2),
    ],
)
def test_a_colour_picture_of_more_bits_is_the_picture_of_eight(picture: bytes):
    np.testing.assert_array_equal(np.asarray(decode(picture, in_chans=3)), COLOUR)


def test_sixteen_bits_keep_their_upper_half_in_every_format():
    pixels = np.array([[0, 255, 256], [32768, 65280, 65535]], dtype=np.uint16)
    for picture in (
        encoded(Image.fromarray(pixels), "PNG"),
        encoded(Image.fromarray(pixels), "TIFF"),
        pgm(pixels, 65535),
    ):
        assert np.asarray(decode(picture, in_chans=1)).tolist() == [[0, 0, 1], [128, 255, 255]]


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (tiff(WIDE.astype("<i4").tobytes(), [32]), "mode is I, .* range is not known; save it with 8 or 16"),
        (tiff(WIDE.astype("<i4").tobytes(), [32], sample_format=2), "mode is I, signed or 32-bit integers"),
        (tiff(WIDE.astype("<i2").tobytes(), [16], sample_format=2), "mode is I, signed or 32-bit integers"),
        (tiff((WIDE / 65535).astype("<f4").tobytes(), [32], sample_format=3), "mode is F, floating-point numbers"),
        (encoded(Image.fromarray((WIDE / 65535).astype(np.float32)), "TIFF"), "mode is F"),
        (b"Pf\n32 32\n-1.0\n" + (WIDE / 65535).astype("<f4").tobytes(), "mode is F"),
        (WIDE.astype(np.int32), "mode is I"),
        (WIDE.astype(np.float32), "mode is F"),
        (Image.fromarray(WIDE.astype(np.int32)), "mode is I"),
        (tiff(WIDE_COLOUR.transpose(2, 0, 1).astype("<u2").tobytes(), [16] * 3, planar=2), "planes of 16 bits"),
    ],
)
def test_values_of_an_unknown_range_are_refused_with_the_reason(picture: object, reason: str):
    with pytest.raises(UnreadableImageError, match=reason):
        decode(picture, in_chans=3)


def test_planes_of_sixteen_bits_that_are_compressed_are_read():
    tifffile = pytest.importorskip("tifffile")
    stream = io.BytesIO()
    planes = WIDE_COLOUR.transpose(2, 0, 1)
    tifffile.imwrite(stream, planes, photometric="rgb", planarconfig="separate", compression="zlib")
    np.testing.assert_array_equal(np.asarray(decode(stream.getvalue(), in_chans=3)), COLOUR)


@pytest.mark.parametrize("extra", [0, 1, 2])
def test_grey_with_transparency_is_grey(extra: int):
    values = np.stack([GREY, np.full_like(GREY, 255)], axis=2)  # opaque, so that multiplied colours are the colours
    picture = tiff(values.tobytes(), [8, 8], extra=extra)
    np.testing.assert_array_equal(np.asarray(decode(picture, in_chans=1)), GREY)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"]
)
@pytest.mark.parametrize("in_chans", [1, 3])
def test_every_mode_of_eight_bits_is_converted(mode: str, in_chans: int):
    straight = {"La": "LA", "RGBa": "RGBA"}.get(mode, mode)
    image = Image.fromarray(COLOUR).convert(straight).convert(mode)
    assert decode(image, in_chans=in_chans).size == (SIDE, SIDE)


def test_a_picture_in_lab_has_the_colours_of_the_one_in_rgb():
    soft = Image.new("RGB", (SIDE, SIDE), (180, 120, 90))
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    picture = encoded(ImageCms.profileToProfile(soft, srgb, lab, outputMode="LAB"), "TIFF")
    assert np.abs(np.asarray(decode(picture, in_chans=3)).astype(int) - np.asarray(soft)).max() <= 2


def test_warnings_that_are_errors_cost_no_picture():
    palette = Image.fromarray(COLOUR).quantize(16)
    picture = encoded(palette, "PNG", transparency=bytes(range(16)))  # Pillow warns of it
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = decode(picture, in_chans=3)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_of_several_frames_the_first_is_used(kind: str):
    frames = [Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)]
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    first = encoded(frames[0], kind, **options)
    np.testing.assert_array_equal(*(np.asarray(decode(each, in_chans=3)) for each in (picture, first)))
