from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from timm.data import ImageNetInfo

from hard_ray.errors import DataError
from hard_ray.evaluation.corruptions import NAMES
from hard_ray.evaluation.published import imagenet_classes, open_published

WNIDS = imagenet_classes()


def fill(root: Path, folders: list[str], each: int = 1) -> Path:
    """A class folder for each name, with grey images in it."""
    for place, name in enumerate(folders):
        (root / name).mkdir(parents=True)
        for number in range(each):
            Image.new("RGB", (4, 4), (place % 256,) * 3).save(root / name / f"{number}.png")
    return root


def test_the_classes_are_timms_in_the_order_of_the_outputs():
    assert list(WNIDS) == ImageNetInfo("imagenet-1k").label_names()
    assert len(WNIDS) == 1000


@pytest.mark.parametrize("letter", ["a", "r"])
def test_the_masks_of_a_and_r_are_timms_lists(letter: str, tmp_path: Path):
    from importlib import resources

    indices = resources.files("timm.data._info").joinpath(f"imagenet_{letter}_indices.txt").read_text().split()
    names = imagenet_classes(f"imagenet_{letter}_synsets.txt")
    fill(tmp_path, list(names))
    (found,) = open_published(f"imagenet-{letter}", tmp_path, WNIDS)
    assert found.outputs == tuple(map(int, indices))
    assert [WNIDS[output] for output in found.outputs] == list(names)
    # a label is a position in the mask: the class folder that the image lies in
    folders = [Path(found.reader.name(row)).parent.name for row in range(len(found.labels))]
    assert [names[label] for label in found.labels] == folders
    assert len(found.labels) == 200


def test_a_class_that_is_missing_is_refused_with_its_name(tmp_path: Path):
    names = imagenet_classes("imagenet_a_synsets.txt")
    fill(tmp_path, [name for name in names if name != names[7]])
    with pytest.raises(DataError, match=rf"imagenet-a: .* lacks 1 of 200 classes, first '{names[7]}'"):
        open_published("imagenet-a", tmp_path, WNIDS)


def test_a_class_that_the_data_has_not_is_refused_with_its_name(tmp_path: Path):
    fill(tmp_path, ["cat", "dog", "emu"])
    with pytest.raises(DataError, match="imagenet-sketch: .* has a class 'emu' that is not among 'cat', 'dog'"):
        open_published("imagenet-sketch", tmp_path, ("cat", "dog"))


def test_a_class_folder_without_an_image_is_refused_with_its_name(tmp_path: Path):
    fill(tmp_path, ["cat"])
    (tmp_path / "dog").mkdir()
    with pytest.raises(DataError, match="dog holds no image"):
        open_published("imagenet-sketch", tmp_path, ("cat", "dog"))


def test_a_subset_needs_imagenets_classes(tmp_path: Path):
    with pytest.raises(DataError, match=r"imagenet-r: the data lacks 200 of the set's 200 classes.*are 'cat', 'dog'"):
        open_published("imagenet-r", tmp_path, ("cat", "dog"))


@pytest.mark.parametrize("archive", [False, True])
def test_imagenet_c_is_corruption_by_severity_by_class(archive: bool, tmp_path: Path):
    blur, weather = (tmp_path / "blur", tmp_path / "weather") if archive else (tmp_path, tmp_path)
    for severity in ("1", "5"):
        fill(blur / "defocus_blur" / severity, ["cat", "dog"], each=2)
    fill(weather / "fog" / "3", ["cat", "dog"])
    found = open_published("imagenet-c", tmp_path, ("dog", "cat"))
    assert [(part.condition, part.severity) for part in found] == [
        ("defocus_blur", "1"),
        ("defocus_blur", "5"),
        ("fog", "3"),
    ]
    assert [part.condition for part in found] == sorted((part.condition for part in found), key=NAMES.index)
    for part in found:
        folders = [Path(part.reader.name(row)).parent.name for row in range(len(part.labels))]
        assert [("dog", "cat")[label] for label in part.labels] == folders
    assert len(found[0].labels) == 4


def test_imagenet_c_without_a_corruption_says_what_is_wanted(tmp_path: Path):
    fill(tmp_path, ["cat"])
    with pytest.raises(DataError, match="holds no folder of a corruption; want .*/gaussian_noise/1/CLASS/IMAGE"):
        open_published("imagenet-c", tmp_path, ("cat",))


def test_imagenet_v2_counts_classes_in_imagenets_order(tmp_path: Path):
    fill(tmp_path, [str(number) for number in range(1000)])
    shuffled = tuple(np.random.default_rng(0).permutation(WNIDS).tolist())
    (found,) = open_published("imagenet-v2", tmp_path, shuffled)
    numbers = [int(Path(found.reader.name(row)).parent.name) for row in range(1000)]
    assert [shuffled[label] for label in found.labels] == [WNIDS[number] for number in numbers]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"stylized-imagenet: .*gone is not a folder"):
        open_published("stylized-imagenet", tmp_path / "gone", ("cat",))


def test_published_sets_are_listed_as_training_lists(tmp_path: Path):
    fill(tmp_path, ["cat", "dog"], each=2)
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "notes.txt"):
        (tmp_path / "cat" / name).write_bytes(b"x")
    (tmp_path / "@eaDir/cat").mkdir(parents=True)
    (tmp_path / "dog/0.png").rename(tmp_path / "dog/0.jpe")
    (tmp_path / "dog/again").symlink_to("..")
    (found,) = open_published("imagenet-sketch", tmp_path, ("cat", "dog"))
    names = [Path(found.reader.name(row)).name for row in range(len(found.labels))]
    assert names == ["0.png", "1.png", "0.jpe", "1.png"]
    assert found.labels.tolist() == [0, 0, 1, 1]


def test_a_part_of_a_published_set_is_refused(tmp_path: Path):
    fill(tmp_path, ["cat", "dog"], each=2)
    (tmp_path / "dog/x.png").symlink_to("nowhere.png")
    with pytest.raises(
        DataError, match=r"imagenet-sketch: 1 images are not used, first .*x\.png: a link that leads nowhere"
    ):
        open_published("imagenet-sketch", tmp_path, ("cat", "dog"))
    (tmp_path / "dog/x.png").unlink()
    (tmp_path / "dog/x.png").symlink_to("../cat/0.png")
    with pytest.raises(DataError, match="one file by a link.*class 'cat' and in class 'dog'"):
        open_published("imagenet-sketch", tmp_path, ("cat", "dog"))
