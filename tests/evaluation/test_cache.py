from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from hard_ray.evaluation.cache import EvaluationCache

IMAGES = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)
IDS = np.array([7, 9])


@dataclass(frozen=True)
class Inverting:
    strength: int = 1
    made: list[int] = field(default_factory=list, repr=False, compare=False)
    slow: ClassVar[bool] = True

    def __call__(self, images: np.ndarray, sample_ids: np.ndarray) -> np.ndarray:
        self.made.append(len(images))
        return 255 - images


def test_the_same_images_are_changed_once_and_read_from_then_on(tmp_path: Path):
    change, cache = Inverting(), EvaluationCache(tmp_path / "deep" / "folder")
    first = cache.changed(change, IMAGES, IDS, version="1")
    assert np.array_equal(cache.changed(change, IMAGES, IDS, version="1"), first)
    assert np.array_equal(first, 255 - IMAGES)
    assert change.made == [2]


@pytest.mark.parametrize("what", ["change", "pixels", "ids", "version"])
def test_whatever_decides_the_images_decides_where_they_are_kept(tmp_path: Path, what: str):
    change, cache = Inverting(), EvaluationCache(tmp_path)
    cache.changed(change, IMAGES, IDS, version="1")
    other = Inverting(2, change.made) if what == "change" else change
    images = IMAGES + 1 if what == "pixels" else IMAGES
    found = cache.changed(other, images, IDS + (what == "ids"), version="2" if what == "version" else "1")
    assert np.array_equal(found, 255 - images)
    assert change.made == [2, 2]


def test_a_damaged_file_is_made_again(tmp_path: Path):
    change, cache = Inverting(), EvaluationCache(tmp_path)
    cache.changed(change, IMAGES, IDS, version="1")
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    assert np.array_equal(cache.changed(change, IMAGES, IDS, version="1"), 255 - IMAGES)
    cache.changed(change, IMAGES, IDS, version="1")
    assert change.made == [2, 2]


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path: Path):
    (tmp_path / "file").touch()
    change, cache = Inverting(), EvaluationCache(tmp_path / "file")
    assert np.array_equal(cache.changed(change, IMAGES, IDS, version="1"), 255 - IMAGES)


def test_the_teachers_answers_are_those_of_its_identity_on_the_same_images(tmp_path: Path):
    cache, logits = EvaluationCache(tmp_path), np.linspace(0, 1, 20, dtype=np.float32).reshape(2, 10)
    assert cache.answer("a", IMAGES) is None
    cache.keep_answer("a", IMAGES, logits)
    assert np.array_equal(cache.answer("a", IMAGES), logits)
    assert cache.answer("b", IMAGES) is None
    assert cache.answer("a", IMAGES + 1) is None
