"""Damaged metadata costs no picture whose pixels decode, and an orientation that can be read is applied."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from hard_ray.data.views import UnreadableImageError, decode
from tests.data.encoded import GREY, encoded, exif, png, png_chunk, tiff, turn, with_segment

TURNS = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.T,
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels.T, 2),
    8: np.rot90,
}
"""What an orientation asks for, of grey pixels."""
JPEG = encoded(Image.fromarray(GREY), "JPEG", quality=95)
PIXELS = np.asarray(Image.fromarray(np.asarray(decode(JPEG, in_chans=1))))
BEYOND = struct.pack("<I", 60_000)
"""A place after the end of every block of EXIF here."""
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def grey(picture: object) -> np.ndarray:
    return np.asarray(decode(picture, in_chans=1))


def in_jpeg(block: bytes) -> bytes:
    return with_segment(JPEG, 0xE1, block)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_every_orientation_is_applied_in_every_format(kind: str, orientation: int):
    block = Image.Exif()
    block[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind in ("JPEG", "AVIF") else {}
    image = Image.fromarray(np.kron(GREY[:4, :8], np.ones((8, 8), dtype=np.uint8)))
    found = grey(encoded(image, kind, exif=block, **options)).astype(int)
    expected = TURNS[orientation](np.asarray(image))
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 4  # what JPEG and AVIF lose


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_of_sixteen_bits_and_one_in_xmp_are_applied(orientation: int):
    wide = png(GREY.astype(np.uint16) * 257, 0, [(b"eXIf", exif(turn(orientation))[6:])])
    np.testing.assert_array_equal(grey(wide), TURNS[orientation](GREY))
    words = XMP.replace(b'"6"', b'"%d"' % orientation)
    np.testing.assert_array_equal(
        grey(with_segment(JPEG, 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + words)), TURNS[orientation](PIXELS)
    )


@pytest.mark.parametrize(
    "entries",
    [
        [turn(6), (0x0128, 2, 4, b"abc\0")],  # words where a number belongs
        [turn(6), (0x0213, 8, 1, struct.pack("<hh", -5, 0))],
        [turn(6), (0x8769, 4, 1, BEYOND)],
        [turn(6), (0x8769, 2, 4, b"abc\0")],
        [turn(6), (0x8825, 4, 1, struct.pack("<I", 8))],  # a directory within itself
        [turn(6), (0x927C, 7, 2**32 - 1, BEYOND)],
        [(0x010E, 2, 400, BEYOND), turn(6)],  # Pillow reads nothing after it
        [(0x010F, 5, 2**31, BEYOND), turn(6)],
        [(0x0100, 99, 7, BEYOND), turn(6), turn(3)],
        [(0x0112, 4, 1, struct.pack("<I", 6))],
        [(0x0112, 1, 1, b"\6\0\0\0")],
    ],
)
def test_an_orientation_beside_damaged_entries_is_applied(entries: list):
    np.testing.assert_array_equal(grey(in_jpeg(exif(*entries))), np.rot90(PIXELS, -1))
    np.testing.assert_array_equal(grey(png(GREY, 0, [(b"eXIf", exif(*entries)[6:])])), np.rot90(GREY, -1))


@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0no TIFF header",
        exif(turn(0)),
        exif(turn(9)),
        exif((0x0112, 2, 4, b"top\0")),
        exif((0x0112, 3, 2**32 - 1, BEYOND)),
        exif(turn(6))[:20],
    ],
)
def test_an_orientation_that_cannot_be_read_is_upright(block: bytes):
    np.testing.assert_array_equal(grey(in_jpeg(block)), PIXELS)
    np.testing.assert_array_equal(grey(png(GREY, 0, [(b"eXIf", block[6:])])), GREY)


@given(st.binary(max_size=200), st.integers(0, 60))
@example(b"\0\0\0\0", 10)
@settings(max_examples=150, deadline=None)
def test_any_damage_of_exif_costs_no_picture(damage: bytes, place: int):
    whole = exif((0x010E, 2, 30, struct.pack("<I", 50)), turn(1), (0x8769, 4, 1, struct.pack("<I", 30)))
    block = whole[:place] + damage + whole[place + len(damage) :]
    for picture, pixels in ((in_jpeg(block), PIXELS), (png(GREY, 0, [(b"eXIf", block)]), GREY)):
        assert sorted(grey(picture).ravel()) == sorted(pixels.ravel())  # turned or not
    head = with_segment(JPEG, 0xE1, b"Exif\0\0" + block)
    assert sorted(grey(head).ravel()) == sorted(PIXELS.ravel())


def damaged(chunk: bytes) -> bytes:
    """A chunk whose checksum is wrong."""
    return chunk[:-4] + bytes(4)


BOMB = zlib.compress(bytes(2 * PngImagePlugin.MAX_TEXT_CHUNK))
PLAIN = png(GREY, 0)


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"zTXt", b"comment\0\0" + BOMB),
        png_chunk(b"iTXt", b"comment\0\1\0\0\0" + BOMB),
        png_chunk(b"zTXt", b"comment\0\7" + BOMB[:9]),
        png_chunk(b"iCCP", b"profile\0\0" + BOMB),
        png_chunk(b"iCCP", b"profile\0\0no profile"),
        png_chunk(b"iCCP", b"profile"),
        png_chunk(b"gAMA", b"\1"),
        png_chunk(b"cHRM", b"\1"),
        png_chunk(b"pHYs", b""),
        png_chunk(b"tRNS", b""),
        png_chunk(b"acTL", b""),
        png_chunk(b"fcTL", bytes(26)),
        png_chunk(b"tEXt", b"interlace\0yes"),
        png_chunk(b"tEXt", b"Raw profile type exif\0no\nexif\n\nprofile"),
        damaged(png_chunk(b"tEXt", b"comment\0words")),
        damaged(png_chunk(b"tIME", bytes(7))),
    ],
    ids=lambda chunk: chunk[4:8].decode(),
)
def test_damaged_chunks_of_a_png_file_cost_neither_picture_nor_orientation(chunk: bytes):
    np.testing.assert_array_equal(grey(PLAIN[:33] + chunk + PLAIN[33:]), GREY)
    turned = PLAIN[:33] + damaged(png_chunk(b"eXIf", exif(turn(6))[6:])) + chunk + PLAIN[33:]
    np.testing.assert_array_equal(grey(turned), np.rot90(GREY, -1))


@pytest.mark.parametrize(
    ("marker", "content"),
    [
        (0xE0, b"JFIF"),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta"),
        (0xE2, b"ICC_PROFILE\0"),
        (0xE2, b"ICC_PROFILE\0\1\7no profile"),
        (0xE2, b"MPF\0II*\0\xff\xff\xff\xff"),
        (0xED, b"Photoshop 3.0\x008BIM\4\4\0\0\xff\xff\xff\xff"),
        (0xED, b"Photoshop 3.0\x008BIM"),
        (0xED, b"Photoshop 3.0\x008BIM\3\xed\0\0\0\0\0\1x"),
        (0xEE, b"Adobe"),
        (0xFE, bytes(range(256))),
    ],
)
def test_damaged_segments_of_a_jpeg_file_cost_neither_picture_nor_orientation(marker: int, content: bytes):
    np.testing.assert_array_equal(grey(with_segment(JPEG, marker, content)), PIXELS)
    np.testing.assert_array_equal(grey(with_segment(in_jpeg(exif(turn(8))), marker, content)), np.rot90(PIXELS))


def test_words_in_place_of_a_resolution_cost_no_tiff_file():
    picture = tiff(GREY.tobytes(), [8], (0x0112, 3, 6), (0x0128, 3, 3), (0x011A, 2, 7))
    np.testing.assert_array_equal(grey(picture), np.rot90(GREY, -1))


@pytest.mark.parametrize(
    "entry",
    [(0x8769, 4, 60_000), (0x8825, 4, 8), (0x8769, 2, 60_000), (0x011A, 5, 60_000), (0x010E, 2, 0), (0x02BC, 1, 7)],
)
def test_damaged_entries_of_a_tiff_file_cost_neither_picture_nor_orientation(entry: tuple):
    for order in "<>":
        picture = tiff(GREY.tobytes(), [8], (0x0112, 3, 6), entry, order=order)
        np.testing.assert_array_equal(grey(picture), np.rot90(GREY, -1))


@pytest.mark.parametrize("place", range(4))
def test_damaged_exif_of_an_avif_file_costs_no_picture(place: int):
    image = Image.fromarray(GREY)
    whole = encoded(image, "AVIF", exif=exif((0x010E, 2, 4, b"abc\0"), turn(1)), quality=90)
    damage = bytearray(whole)
    damage[whole.index(b"II*\0", 100) + place] ^= 0xFF
    np.testing.assert_array_equal(grey(bytes(damage)), grey(whole))


def test_pixels_that_are_cut_off_are_unreadable_with_any_metadata():
    for picture in (in_jpeg(exif(turn(6)))[:-300], PLAIN[:-60], with_segment(JPEG, 0xE2, b"ICC_PROFILE\0")[:-300]):
        with pytest.raises(UnreadableImageError, match="truncated|broken|no image"):
            decode(picture, in_chans=1)


def test_colours_keep_their_meaning_when_metadata_is_removed():
    ink = Image.fromarray(np.stack([GREY, GREY.T, 255 - GREY, GREY], axis=2), "CMYK")
    whole = encoded(ink, "JPEG", quality=95)
    assert b"Adobe" in whole[:200]
    broken = with_segment(whole, 0xE2, b"ICC_PROFILE\0")  # Pillow alone finds no picture here
    np.testing.assert_array_equal(*(np.asarray(decode(each, in_chans=3)) for each in (whole, broken)))
