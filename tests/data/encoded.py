"""Encoded pictures, some of them with what no usual writer writes."""

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

SIDE = 32
GREY = (np.arange(SIDE * SIDE).reshape(SIDE, SIDE) * 7 % 256).astype(np.uint8)
"""Every level, and no symmetry."""


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """A picture in one of Pillow's formats."""
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def pgm(values: np.ndarray, largest: int, magic: str = "P5") -> bytes:
    """A PGM file, or a PPM file where values have three channels; binary or, for P2 and P3, in words."""
    head = f"{magic}\n{values.shape[1]} {values.shape[0]}\n{largest}\n".encode()
    if magic in ("P2", "P3"):
        return head + b" ".join(str(value).encode() for value in values.ravel())
    return head + values.astype(">u2" if largest > 255 else np.uint8).tobytes()


def png(values: np.ndarray, colour: int, chunks: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """A PNG file of 8 or 16 bits; `chunks` stand before the pixels."""
    depth = 8 * values.dtype.itemsize
    rows = values.reshape(len(values), -1).astype(values.dtype.newbyteorder(">"))
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, colour, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(body)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, data) for name, data in parts)


def png_chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def tiff(values: bytes, bits: Sequence[int], *entries: tuple[int, int, int], order: str = "<", **tags: int) -> bytes:
    """An uncompressed TIFF file of `SIDE` x `SIDE` pixels; `entries` are further tags, types and values of four bytes.

    `tags` override the usual ones: `photometric`, `planar`, `sample_format`, `extra`.
    """
    planes = len(bits) if tags.get("planar") == 2 else 1
    made = {
        256: (3, 1, SIDE),
        257: (3, 1, SIDE),
        259: (3, 1, 1),
        262: (3, 1, tags.get("photometric", 1 if len(bits) < 3 else 2)),
        277: (3, 1, len(bits)),
        278: (3, 1, SIDE),
        284: (3, 1, tags.get("planar", 1)),
        339: (3, 1, tags.get("sample_format", 1)),
    }
    if "extra" in tags:
        made[338] = (3, 1, tags["extra"])
    head = 8 + 2 + 12 * (len(made) + 3 + len(entries)) + 4
    wide = b"".join(struct.pack(f"{order}H", each) for each in bits)
    size = len(values) // planes
    offsets = [head + len(wide) + 8 * planes + number * size for number in range(planes)]
    places = b"".join(struct.pack(f"{order}I", each) for each in offsets)
    sizes = struct.pack(f"{order}I", size) * planes
    made[258] = (3, len(bits), head) if len(bits) > 2 else (3, len(bits), int.from_bytes(wide, "little"))
    made[273] = (4, planes, head + len(wide)) if planes > 1 else (4, 1, offsets[0])
    made[279] = (4, planes, head + len(wide) + len(places)) if planes > 1 else (4, 1, size)
    every = sorted([*((tag, *rest) for tag, rest in made.items()), *((tag, kind, 1, v) for tag, kind, v in entries)])
    directory = b"".join(_entry(order, *each, inline=each[0] == 258 and len(bits) <= 2) for each in every)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    ifd = struct.pack(f"{order}H", len(every)) + directory + bytes(4)
    return magic + struct.pack(f"{order}I", 8) + ifd + wide + places + sizes + values


def _entry(order: str, tag: int, kind: int, count: int, value: int, *, inline: bool) -> bytes:
    head = struct.pack(f"{order}HHI", tag, kind, count)
    if inline:  # the bytes of one or two shorts
        return head + value.to_bytes(4, "little")
    return head + (struct.pack(f"{order}HH", value, 0) if kind == 3 and count == 1 else struct.pack(f"{order}I", value))


def exif(*entries: tuple[int, int, int, bytes], order: str = "<") -> bytes:
    """A block of EXIF of entries: tag, type, count and the field of four bytes."""
    magic = b"II*\0" if order == "<" else b"MM\0*"
    ifd = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, field in entries:
        ifd += struct.pack(f"{order}HHI", tag, kind, count) + field
    return b"Exif\0\0" + magic + struct.pack(f"{order}I", 8) + ifd + bytes(4)


def turn(orientation: int, order: str = "<") -> tuple[int, int, int, bytes]:
    """EXIF's entry of an orientation."""
    return (0x0112, 3, 1, struct.pack(f"{order}HH", orientation, 0))


def with_segment(jpeg: bytes, marker: int, content: bytes) -> bytes:
    """A JPEG file with a segment at its beginning."""
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + jpeg[2:]
