"""The metadata of encoded pictures: the orientation is read wherever it can be, and nothing else matters.

Damaged metadata never costs a picture: `without_metadata` removes what Pillow stumbles over.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress

from PIL import ExifTags, Image

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = int(ExifTags.Base.Orientation)
_FORMS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}
"""TIFF's types of integers, as `struct` names them."""

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_TIFFS = (b"II*\0", b"MM\0*")
_ORDERS = {b"II": "<", b"MM": ">"}
"""The order of TIFF's bytes, as `struct` names it."""

_PNG_EXIF = b"eXIf"
_EXIF, _ADOBE, _COMMENT = 0xE1, 0xEE, 0xFE
"""JPEG's segments with the orientation, with the meaning of the channels, and with a comment."""
_LEAST_ADOBE = 14
"""Bytes below which every decoder passes over an Adobe segment, with its length."""
_APPLICATION = range(0xE0, 0xF0)
_SCAN = 0xDA
"""After this segment come pixels."""
_BOX = b"ftyp"
_AVIF_EXIF = re.compile(rb"(infe.{8}(?:..)?)Exif", re.DOTALL)
"""AVIF's entry of an item with EXIF; an item of an unknown type is passed over. The orientation is no part of it."""
_PIXEL_TAGS = frozenset(
    {254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325}
    | {338, 339, 347, 530, 532}
)
"""TIFF's tags that decide how pixels are stored, and the orientation."""


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The picture upright, given the orientation of its metadata."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def orientation_of(image: Image.Image) -> int:
    """The orientation of a loaded picture, 1 to 8, as EXIF counts them; 1 if none can be read."""
    with suppress(Exception):  # Pillow's parsers raise errors of any type
        value = image.getexif().get(_ORIENTATION)
        if value in _TURNS:
            return int(value)
    exif = image.info.get("exif")
    return _orientation_in(exif) if isinstance(exif, bytes) else 1


def _orientation_in(exif: bytes) -> int:
    """The orientation in a block of EXIF, whose entries before it may be damaged: Pillow ends at the first such one."""
    with suppress(struct.error, KeyError):
        exif = exif.removeprefix(b"Exif\0\0")
        order = _ORDERS[exif[:2]]
        for place in _entries(exif, order):
            tag, form, count = struct.unpack_from(f"{order}HHI", exif, place)
            if tag == _ORIENTATION and count == 1 and form in _FORMS:
                (value,) = struct.unpack_from(f"{order}{_FORMS[form]}", exif, place + 8)
                return int(value) if value in _TURNS else 1
    return 1


def _entries(tiff: bytes, order: str) -> Iterator[int]:
    """Yield the places of the entries in TIFF's first directory; raises struct.error where it ends too soon."""
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    yield from range(start + 2, start + 2 + 12 * count, 12)


def without_metadata(encoded: bytes) -> list[bytes]:
    """The same picture with less metadata: what to try, one after the other, if it cannot be decoded as it is.

    The first keeps the orientation. Empty for formats other than PNG, JPEG, TIFF and AVIF: Pillow only stores the
    metadata of the others.
    """
    with suppress(struct.error, IndexError):
        if encoded.startswith(_PNG):
            return [_png(encoded, with_exif=True), _png(encoded, with_exif=False)]
        if encoded.startswith(_JPEG):
            return [_jpeg(encoded, with_exif=True), _jpeg(encoded, with_exif=False)]
        if encoded[:4] in _TIFFS:
            return [_tiff(encoded, _ORDERS[encoded[:2]])]
        if encoded[4:8] == _BOX:
            return [_AVIF_EXIF.sub(rb"\1none", encoded)]
    return []


def _png(encoded: bytes, *, with_exif: bool) -> bytes:
    """Keep the chunks that decide the pixels, whose names begin with a capital letter."""
    parts, place = [_PNG], len(_PNG)
    while place + 8 <= len(encoded):
        (size,) = struct.unpack_from(">I", encoded, place)
        name, end = encoded[place + 4 : place + 8], place + 12 + size
        if name[:1].isupper():
            parts.append(encoded[place:end])
        elif name == _PNG_EXIF and with_exif:
            checksum = zlib.crc32(encoded[place + 4 : end - 4])  # the file's may be what is wrong
            parts.append(encoded[place : end - 4] + struct.pack(">I", checksum))
        place = end
    return b"".join(parts)


def _jpeg(encoded: bytes, *, with_exif: bool) -> bytes:
    """Keep the segments that decide the pixels, up to the scan, and all that follows."""
    parts, place = [_JPEG], len(_JPEG)
    while (marker := encoded[place + 1]) != _SCAN:
        (size,) = struct.unpack_from(">H", encoded, place + 2)
        is_metadata = marker in _APPLICATION or marker == _COMMENT
        is_kept = (marker == _EXIF and with_exif) or (marker == _ADOBE and size >= _LEAST_ADOBE)
        if is_kept or not is_metadata:
            parts.append(encoded[place : place + 2 + size])
        place += 2 + size
    return b"".join([*parts, encoded[place:]])


def _tiff(encoded: bytes, order: str) -> bytes:
    """Give the entries that are not about pixels a type that no reader knows, so that it passes over them."""
    changed = bytearray(encoded)
    for place in _entries(encoded, order):
        (tag,) = struct.unpack_from(f"{order}H", encoded, place)
        if tag not in _PIXEL_TAGS:
            struct.pack_into(f"{order}H", changed, place + 2, 0)
    return bytes(changed)
