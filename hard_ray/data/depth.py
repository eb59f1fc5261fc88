"""Pictures of any mode of Pillow's as grey or RGB of 8 bits a channel.

Pillow clips modes wider than 8 bits, so that a 16-bit picture turns white. Here their values are scaled by the range
that the file's format gives them; a mode whose range no format gives is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIXTEEN = 65535
_PLANES_APART = 2
_STRAIGHT = {"La": "LA", "RGBa": "RGBA"}
"""Modes with colours that are multiplied by their transparency, and the modes that they convert to."""
_UNKNOWN = {
    "I": "signed or 32-bit integers",
    "F": "floating-point numbers",
}
"""Modes whose range no format gives; PGM's, which Pillow scales to 16 bits, is known."""
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_PLANAR = 258, 262, 284


class UnknownRangeError(ValueError):
    """Pixels whose values have a range that is not known; the text says what they are and what to do."""


def to_eight_bits(image: Image.Image, *, in_chans: int) -> Image.Image:
    """Convert a picture to mode L or RGB; transparency is dropped.

    Of 16 bits the upper 8 are kept, as libpng keeps them; other ranges are scaled and rounded. Raises UnknownRangeError
    if the range of the values is not known, and whatever Pillow raises where the pixels cannot be decoded.
    """
    _refuse_planes(image)
    if image.mode.startswith("I;16"):
        image = _from_sixteen(image)
    elif image.mode == "I" and image.format == "PPM":
        image = _from_pgm(image)
    elif image.mode in _UNKNOWN:
        raise UnknownRangeError(
            f"the picture's mode is {image.mode}, {_UNKNOWN[image.mode]} whose range is not known; "
            "save it with 8 or 16 unsigned bits a channel"
        )
    elif image.mode == "LAB":
        image = _from_lab(image)
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode in _STRAIGHT:
        image = image.convert(_STRAIGHT[image.mode])
    return image.convert("L" if in_chans == 1 else "RGB")


def _from_sixteen(image: Image.Image) -> Image.Image:
    """Scale unsigned integers of 16 bits or, in a TIFF file that says so, of fewer; white may be 0 there."""
    tags = getattr(image, "tag_v2", {})
    largest = 2 ** min(tags.get(_TIFF_BITS, (16,))) - 1
    white_is_zero = tags.get(_TIFF_PHOTOMETRIC) == 0
    values = np.asarray(image).astype(np.int64)
    if white_is_zero:
        values = largest - values
    return Image.fromarray(_scaled(values, largest))


def _from_pgm(image: Image.Image) -> Image.Image:
    """Scale the values of a PGM file with more than 8 bits, which Pillow scaled to 16 from the file's own maximum."""
    tiles = getattr(image, "tile", [])  # empty once the pixels are loaded
    arguments = tiles[0].args if tiles else ()
    own = arguments[1] if isinstance(arguments, tuple) and len(arguments) == 2 else _SIXTEEN
    values = np.asarray(image)
    eight = values >> 8 if own == _SIXTEEN else np.rint(values / 257)
    return Image.fromarray(eight.astype(np.uint8))


def _scaled(values: NDArray[Any], largest: int) -> NDArray[np.uint8]:
    eight = values >> 8 if largest == _SIXTEEN else np.rint(values * (255 / largest))
    return eight.astype(np.uint8)


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None  # it is not changed in place
    return converted


def _refuse_planes(image: Image.Image) -> None:
    """Refuse an uncompressed TIFF file with a plane for each channel of 16 bits: Pillow reads half of each as noise."""
    tags = getattr(image, "tag_v2", {})
    if (
        tags.get(_TIFF_PLANAR) == _PLANES_APART
        and max(tags.get(_TIFF_BITS, (8,))) > 8
        and len(image.getbands()) > 1
        and not getattr(image, "use_load_libtiff", False)
    ):
        raise UnknownRangeError(
            "the TIFF file holds uncompressed planes of 16 bits, which Pillow cannot read; save it with interleaved "
            "channels, or compressed"
        )
