"""What is not used of pictures that are read: frames after the first, transparency, and values beyond 8 bits."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from PIL import Image

from hard_ray.data.readers import Picture, open_picture

_DARK = 4095
"""Largest value of 12 bits, which cameras and scanners store in 16."""


def remarks(picture: Picture) -> list[str]:
    """What is not used of a picture, as ends of a sentence about it; empty if all is used, or it cannot be read."""
    with suppress(Exception):  # `decode` says why it cannot be read
        image = open_picture(picture)
        found = [_frames(image), _transparency(image), _depth(image)]
        return [remark for remark in found if remark]
    return []


def _frames(image: Image.Image) -> str:
    is_more = getattr(image, "n_frames", 1) > 1 and image.format != "MPO"  # cameras add previews and depth
    return "have several frames or pages, of which the first is used" if is_more else ""


def _transparency(image: Image.Image) -> str:
    if not image.has_transparency_data or image.mode not in ("P", "PA", "LA", "RGBA"):
        return ""
    opacity = np.asarray(image.convert("RGBA").getchannel("A"))
    return "have transparent parts, of which the colours beneath are used" if opacity.min() < 255 else ""


def _depth(image: Image.Image) -> str:
    if not image.mode.startswith("I"):
        return ""
    if int(np.asarray(image).max()) <= _DARK and getattr(image, "tag_v2", {}).get(258, (16,)) == (16,):
        return f"have 16 bits, but no value above {_DARK}, so they are dark: scale them to 16 bits, or to 8"
    return "have more than 8 bits a channel, of which the upper 8 are used"
