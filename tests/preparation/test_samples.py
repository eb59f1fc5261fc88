"""Images of each split that are tried before a run."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hard_ray.config.loader import load_config
from hard_ray.data.sources.build import build_index
from hard_ray.errors import DataError
from hard_ray.preparation.samples import SAMPLE, try_images
from tests.support.helpers import make_image_folder

GREY = np.arange(400).reshape(20, 20).astype(np.uint16)


def notes_of(root: Path, *more: str) -> list[str]:
    config = load_config(overrides=["data.kind=image_folder", f"data.path={root}", "data.img_size=16", *more])
    return try_images(config.data, build_index(config.data))


def half(number: int) -> Image.Image:
    image = Image.new("RGBA", (20, 20), (200, 0, 0, 255))
    image.putalpha(Image.new("L", (20, 20), number))
    return image


@pytest.mark.parametrize(
    ("image", "options", "suffix", "words"),
    [
        (half(100), {}, ".png", "have transparent parts, of which the colours beneath are used"),
        (half(255), {}, ".png", None),
        (Image.fromarray(GREY * 160), {}, ".png", "have more than 8 bits a channel, of which the upper"),
        (Image.fromarray(GREY * 160), {}, ".pgm", "have more than 8 bits a channel, of which the upper"),
        (Image.fromarray(GREY * 10), {}, ".tif", "have 16 bits, but no value above 4095, so they are dark"),
        (half(255), {"save_all": True, "append_images": [half(9)]}, ".gif", "have several frames or pages, of which"),
        (half(255).quantize(8), {"transparency": 0}, ".png", "have transparent parts"),
        (half(255).convert("RGB"), {}, ".jpg", None),
    ],
)
def test_what_is_not_used_of_pictures_is_said(
    tmp_path: Path, image: Image.Image, options: dict, suffix: str, words: str | None
):
    root = make_image_folder(tmp_path)
    for path in (root / "val").rglob("*.png"):
        path.unlink()
        image.save(path.with_suffix(suffix), **options)
    notes = notes_of(root)
    assert bool(notes) is (words is not None)
    if words is not None:
        assert notes[0].startswith(f"8 of 8 tried images of the val split {words}")


def test_images_that_cannot_be_decoded_are_said_with_the_reason(tmp_path: Path):
    root = make_image_folder(tmp_path, per_class=40)
    (root / "train" / "ant" / "000.png").write_bytes(b"<!DOCTYPE html>")
    (note,) = notes_of(root, "data.max_bad_fraction=0.5")
    assert note.startswith(
        f"1 of {SAMPLE} tried images of the train split cannot be decoded, first {root}/train/ant/000"
    )
    assert "HTML page" in note
    for path in (root / "val").rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"8 of 8 tried images of the val split cannot be decoded.*data\.kind and data"):
        notes_of(root, "data.max_bad_fraction=0.5")
