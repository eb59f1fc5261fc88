"""What a file is that no image can be read from, as far as its beginning tells, and what to do with it."""

from __future__ import annotations

import re
import struct
from contextlib import suppress

_CONVERT = "convert it to JPEG or PNG"
_KINDS = (
    (rb"version https://git-lfs", "a pointer of Git LFS; fetch the file itself with `git lfs pull`"),
    (rb"(?i)\s*(<!doctype html|<html|<head)", "an HTML page, as a failed download leaves; download it again"),
    (rb"(?i)\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<svg", f"an SVG drawing; {_CONVERT}"),
    (rb"\s*[{\[]\s*[\"{\[]", "JSON text, as a failed download leaves; download it again"),
    (rb"....ftyp(hei|hev|mif1|msf1)", f"a HEIC image; {_CONVERT}"),
    (rb"\0\0\0\x0cJXL |\xff\x0a", f"a JPEG XL image; {_CONVERT}"),
    (rb"8BPS", f"a Photoshop file; {_CONVERT}"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", f"a PostScript program, which is not run; {_CONVERT}"),
    (rb"%PDF", f"a PDF document; {_CONVERT}"),
    (rb"....ftyp", f"a film, or an image of a format that is not read; {_CONVERT}"),
    (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!", "a compressed archive; unpack it"),
    (rb"\x93NUMPY", "an array of NumPy; encode it as PNG"),
    (rb"(?s).{128}DICM", f"a DICOM image; {_CONVERT}"),
)
_TIFF = {b"II": "<", b"MM": ">"}
_BITS, _SAMPLES, _COMPRESSION = 258, 277, 259
_HEAD = 1024


def content_of(encoded: bytes) -> str:
    """What the bytes are, in words, with what to do."""
    head = encoded[:_HEAD]
    if not head.strip(b"\0"):
        return "the file holds nothing but zeros; copy it again" if head else "the file is empty; copy it again"
    for pattern, what in _KINDS:
        if re.match(pattern, head, re.DOTALL):
            return f"it is {what}"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return f"it is a TIFF file{_tiff_facts(encoded)} that is not read; save it with 8 or 16 bits a channel"
    if head[:2] == b"\xff\xd8":
        return "it is a JPEG file that is damaged, or not of 8 bits; save it anew"
    return "want JPEG, PNG, GIF, BMP, PPM, TIFF, WebP, JPEG 2000 or AVIF; replace the file"


def _tiff_facts(encoded: bytes) -> str:
    """Channels, bits and compression of a TIFF file; empty if they cannot be told."""
    with suppress(struct.error, KeyError):
        order = _TIFF[encoded[:2]]
        (start,) = struct.unpack_from(f"{order}I", encoded, 4)
        (count,) = struct.unpack_from(f"{order}H", encoded, start)
        found = {}
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, number, value = struct.unpack_from(f"{order}HHIH", encoded, place)
            if tag == _BITS and number > 2:  # the values stand elsewhere
                (value,) = struct.unpack_from(
                    f"{order}H", encoded, struct.unpack_from(f"{order}I", encoded, place + 8)[0]
                )
            found[tag] = value
        compression = found.get(_COMPRESSION, 1)
        packed = f", compression {compression}" if compression != 1 else ""
        return f" of {found.get(_SAMPLES, 1)} channels of {found[_BITS]} bits{packed}"
    return ""
