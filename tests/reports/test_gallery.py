import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from hard_ray.reports.figures import save_png
from hard_ray.reports.gallery import (
    AGREE,
    DIFFER,
    Verdicts,
    draw_gallery,
    draw_generated,
    draw_strip,
    names_of,
    shortened,
)
from hard_ray.runs.snapshots import Guesses
from tests.runs.test_snapshots import snapshot

CLASSES = ("ant", "a $bee$ of a very long name", "cat")


def pictures_of(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(axis.images[0].get_array()) for axis in figure.axes if axis.images]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_gallery_is_originals_augmented_images_and_their_differences(tmp_path: Path, channels: int):
    given = snapshot(channels=channels)
    figure = draw_gallery(given, CLASSES)
    shown = pictures_of(figure)
    assert len(shown) == 15
    before, after = (view.images[2].transpose(1, 2, 0).squeeze() for view in (given.original, given.augmented))
    np.testing.assert_array_equal(shown[2], before)
    np.testing.assert_array_equal(shown[7], after)
    difference = (given.augmented.images[2] / 255.0 - given.original.images[2] / 255.0).mean(axis=0)
    np.testing.assert_allclose(shown[12], difference)
    save_png(figure, tmp_path / "gallery" / "x.png")
    with Image.open(tmp_path / "gallery" / "x.png") as image:
        assert image.width > 700
        assert image.height > 500
    assert [path.name for path in (tmp_path / "gallery").iterdir()] == ["x.png"]


def test_what_the_networks_say_stands_below_in_the_colour_of_their_agreement():
    given = snapshot()
    figure = draw_gallery(given, CLASSES)
    for column in range(5):
        teacher, student = given.augmented.teacher, given.augmented.student
        label = figure.axes[5 + column].xaxis.label
        first, second = label.get_text().splitlines()
        assert first == Verdicts.of(teacher, CLASSES).line("T", column)
        assert second == Verdicts.of(student, CLASSES).line("S", column)
        assert label.get_color() == (AGREE if teacher.classes[column] == student.classes[column] else DIFFER)
    assert {AGREE, DIFFER} == {axis.xaxis.label.get_color() for axis in figure.axes[:10]}


def test_a_strip_has_a_row_for_each_image_and_a_column_for_each_moment():
    moments = [snapshot(step) for step in (0, 40, 1200)]
    figure = draw_strip(moments, CLASSES)
    shown = pictures_of(figure)
    assert len(shown) == 5 * 4
    np.testing.assert_array_equal(shown[0], moments[0].original.images[0, 0])
    np.testing.assert_array_equal(shown[3], moments[2].augmented.images[0, 0])
    np.testing.assert_array_equal(shown[4 * 4 + 1], moments[0].augmented.images[4, 0])
    assert [axis.get_title() for axis in figure.axes[:4]] == ["original", "update 0", "update 40", "update 1,200"]


def test_dollars_in_class_names_are_no_formula():
    figure = draw_gallery(snapshot(), ("$x$", "$\\frac$", "cost: $"))
    figure.savefig(io.BytesIO())  # a formula that cannot be parsed would raise here
    assert figure.axes[0].get_title() == "$x$"


def test_names_are_numbers_where_no_class_is_known():
    assert names_of(np.array([1, 7]), ("ant", "bee")) == ("bee", "7")
    assert shortened("a class of a very long name") == "a class of a …"


def test_verdicts_are_the_top_class_and_its_probability():
    verdicts = Verdicts.of(Guesses(np.array([1, 0]), np.array([0.88, 0.5], dtype=np.float32)), ("ant", "bee"))
    assert verdicts.names == ("bee", "ant")
    assert verdicts.line("T", 0) == "T bee 88%"


def test_a_generated_gallery_is_a_row_for_each_stage_and_what_the_last_one_changed():
    random = np.random.default_rng(0)
    first, second, third = (random.integers(0, 256, (4, 3, 6, 6)).astype(np.uint8) for _ in range(3))
    right = Guesses(np.array([0, 1, 2, 0]), np.full(4, 0.9, np.float32))
    wrong = Guesses(np.array([0, 1, 2, 1]), np.full(4, 0.6, np.float32))
    rows = {"original": (first, right), "reconstructed": (second, right), "generated": (third, wrong)}
    figure = draw_generated(rows, right.classes, CLASSES, heading="heading")
    shown = pictures_of(figure)
    assert len(shown) == 16
    np.testing.assert_array_equal(shown[4], second[0].transpose(1, 2, 0))
    np.testing.assert_allclose(shown[13], (third[1] / 255.0 - second[1] / 255.0).mean(axis=0))
    colours = [axis.xaxis.label.get_color() for axis in figure.axes[8:12]]
    assert colours == [AGREE, AGREE, AGREE, DIFFER]
