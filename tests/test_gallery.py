from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hard_ray.gallery import Panel, Verdicts, draw_gallery


def panel(title: str, channels: int, shift: float = 0.0) -> Panel:
    images = np.clip(np.random.default_rng(0).random((5, channels, 12, 12)) + shift, 0, 1).astype(np.float32)
    logits = torch.eye(5) * 3
    classes = ("a", "b", "a class with a very long name", "d", "e")
    return Panel(title, images, Verdicts.of(logits, classes), Verdicts.of(logits.roll(1, 0), classes))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_gallery_is_a_picture_of_three_rows(tmp_path: Path, channels: int):
    path = tmp_path / "gallery" / "x.png"
    draw_gallery(path, original=panel("original", channels), augmented=panel("augmented", channels, 0.3), heading="h")
    with Image.open(path) as image:
        assert image.width > 700
        assert image.height > 500
        assert len(np.unique(np.asarray(image.convert("L")))) > 50
    assert [p.name for p in path.parent.iterdir()] == ["x.png"]


def test_without_an_augmentation_one_row_is_left(tmp_path: Path):
    draw_gallery(tmp_path / "x.png", original=panel("original", 1), augmented=None, heading="h")
    with Image.open(tmp_path / "x.png") as image:
        assert image.height < 350


def test_verdicts_are_the_top_class_and_its_probability():
    verdicts = Verdicts.of(torch.tensor([[0.0, 2.0], [1.0, 1.0]]), ("ant", "bee"))
    assert verdicts.names == ("bee", "ant")
    assert verdicts.confidences == pytest.approx((1 / (1 + np.exp(-2)), 0.5))
    assert verdicts.line("T", 0) == "T bee 88%"
