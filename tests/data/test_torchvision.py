"""torchvision's own classes on small folders of their layouts: splits, labels, class names and pictures."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from hard_ray.config.loader import load_config
from hard_ray.data.index import ImageIndex
from hard_ray.data.sources import torchvision_sets
from hard_ray.data.sources.build import build_index
from hard_ray.data.sources.torchvision_sets import find_torchvision
from hard_ray.data.views import decode
from hard_ray.errors import ConfigError, DataError
from tests.data import torchvision_folders as folders
from tests.data.torchvision_folders import LEVELS


@pytest.fixture(autouse=True)
def _own_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are the test's, so their checksums are not torchvision's."""
    for name in ("Flowers102", "SVHN", "STL10", "Caltech256"):
        method = "_check_integrity"
        monkeypatch.setattr(getattr(datasets, name), method, lambda self: True)
    torchvision_sets.open_torchvision.cache_clear()


def overrides(name: str, root: Path, *more: str) -> list[str]:
    return ["data.kind=torchvision", f"data.name={name}", f"data.path={root}", "data.download=false", *more]


def index_of(name: str, root: Path, *more: str) -> ImageIndex:
    return build_index(load_config(overrides=overrides(name, root, *more)).data)


def check_pictures(index: ImageIndex) -> None:
    """Every picture has the level of its class, of which there are two."""
    used = np.unique(np.concatenate(list(index.splits.values())))
    pictures = index.reader.read(used.tolist())
    levels = [int(np.asarray(decode(picture, in_chans=1)).mean()) for picture in pictures]
    classes = np.unique(index.labels[used])
    assert len(classes) == 2
    expected = np.take(np.array(LEVELS), np.searchsorted(classes, index.labels[used]))
    np.testing.assert_allclose(levels, expected, atol=3)


@pytest.mark.parametrize(
    ("name", "make", "sizes", "classes"),
    [
        ("Flowers102", folders.flowers102, (40, 10, 10), None),
        ("StanfordCars", folders.stanford_cars, (18, 2, 20), ("ant", "bee")),
        ("OxfordIIITPet", folders.oxford_iiit_pet, (18, 2, 20), ("Ant", "Bee")),
        ("Food101", folders.food101, (36, 4, 40), ("ant", "bee")),
        ("DTD", folders.dtd, (20, 20, 20), ("ant", "bee")),
        ("FGVCAircraft", folders.fgvc_aircraft, (20, 10, 10), ("ant", "bee")),
        ("GTSRB", folders.gtsrb, (36, 4, 10), ("0", "1")),
        ("STL10", folders.stl10, (36, 4, 10), ("ant", "bee")),
        ("SVHN", folders.svhn, (36, 4, 10), ("0", "1")),
        (
            "Imagenette",
            folders.imagenette,
            (40, 20, None),
            ("tench, Tinca tinca", "English springer, English springer spaniel"),
        ),
        ("RenderedSST2", folders.rendered_sst2, (40, 40, 40), ("negative", "positive")),
        ("SUN397", folders.sun397, (32, 4, 4), ("ant", "bee")),
        ("EuroSAT", folders.eurosat, (32, 4, 4), ("ant", "bee")),
        ("Caltech101", folders.caltech101, (32, 4, 4), ("0", "1")),
        ("Caltech256", folders.caltech256, (32, 4, 4), ("0", "1")),
        ("ImageFolder", folders.image_folder, (32, 4, 4), ("ant", "bee")),
    ],
)
def test_classes_are_found_with_their_splits_and_labels(
    tmp_path: Path, name: str, make: Callable[[Path], None], sizes: tuple, classes: tuple[str, ...] | None
):
    make(tmp_path)
    index = index_of(name, tmp_path)
    found = tuple(len(index.splits[split]) if split in index.splits else None for split in ("train", "val", "test"))
    assert found == sizes
    if classes is not None:
        assert index.classes == classes
    check_pictures(index)


def test_emnist_is_chosen_by_an_argument_and_its_letters_begin_at_one(tmp_path: Path):
    folders.emnist(tmp_path)
    index = index_of("EMNIST", tmp_path, "data.arguments.split=letters", "data.img_size=28")
    assert {split: len(rows) for split, rows in index.splits.items()} == {"train": 36, "val": 4, "test": 10}
    assert sorted(set(index.labels.tolist())) == [1, 26]
    assert (index.classes[0], index.classes[26]) == ("N/A", "z")
    check_pictures(index)
    with pytest.raises(DataError, match=r"missing 1 required .* 'split'; set it in data\.arguments"):
        index_of("EMNIST", tmp_path)
    with pytest.raises(DataError, match=r"Unknown value 'words' .* Valid values are"):
        index_of("EMNIST", tmp_path, "data.arguments.split=words")


def test_arguments_choose_what_is_classified(tmp_path: Path):
    folders.fgvc_aircraft(tmp_path)
    index = index_of("FGVCAircraft", tmp_path, "data.arguments.annotation_level=family")
    assert index.classes == ("A", "B")
    assert index.labels[:2].tolist() == [1, 0]
    with pytest.raises(DataError, match=r"Unknown value 'colour' .*data\.arguments"):
        index_of("FGVCAircraft", tmp_path, "data.arguments.annotation_level=colour")


def test_labels_that_an_argument_changes_are_read_with_the_images_and_that_is_said(tmp_path: Path):
    folders.oxford_iiit_pet(tmp_path)
    for split in ("trainval", "test"):
        path = tmp_path / f"oxford-iiit-pet/annotations/{split}.txt"
        lines = [line.split() for line in path.read_text().splitlines()]
        path.write_text("".join(f"{name} {label} {3 - int(label)} 1\n" for name, label, *_ in lines))
    index = index_of("OxfordIIITPet", tmp_path, "data.arguments.target_types=binary-category")
    assert index.labels[:2].tolist() == [1, 0]
    assert any("read with its images" in note for note in index.account.notes)


def test_splits_are_named_by_the_configuration(tmp_path: Path):
    folders.fgvc_aircraft(tmp_path)
    index = index_of("FGVCAircraft", tmp_path, "data.train_split=trainval")
    assert {split: len(rows) for split, rows in index.splits.items()} == {"train": 27, "val": 3, "test": 10}
    assert any("'trainval' holds the images of a validation split" in note for note in index.account.notes)
    index = index_of("FGVCAircraft", tmp_path, "data.val_split=false", "data.test_split=val")
    assert {split: len(rows) for split, rows in index.splits.items()} == {"train": 18, "val": 2, "test": 10}
    assert index.account.origins["test"] == "torchvision's split 'val'"
    index = index_of("FGVCAircraft", tmp_path, "data.test_split=false")
    assert set(index.splits) == {"train", "val"}


@pytest.mark.parametrize(
    ("name", "make", "given", "words"),
    [
        ("DTD", folders.dtd, "data.val_split=dev", r"Unknown value 'dev'.*\{.*'val'.*\}.* Set data\.val_split to one"),
        ("DTD", folders.dtd, "data.train_split=all", r"Unknown value 'all'.* Set data\.train_split to one of them"),
        ("EuroSAT", folders.eurosat, "data.test_split=test", r"the class has no splits; remove data\.test_split"),
        ("EMNIST", folders.emnist, "data.val_split=val", r"has the splits 'train' and 'test' alone; remove the key"),
        ("EMNIST", folders.emnist, "data.train_split=letters", r"has the splits 'train' and 'test' alone"),
    ],
)
def test_splits_that_are_not_there_are_refused(
    tmp_path: Path, name: str, make: Callable[[Path], None], given: str, words: str
):
    make(tmp_path)
    with pytest.raises(DataError, match=words):
        index_of(name, tmp_path, given)


def test_labels_that_a_split_lacks_are_passed_on_as_such(tmp_path: Path):
    folders.clevr(tmp_path)
    found = find_torchvision(load_config(overrides=overrides("CLEVRClassification", tmp_path)).data)
    assert set(found.splits) == {"train", "val", "test"}
    assert {found.labels[row] for row in found.splits["test"]} == {None}
    assert {found.labels[row] for row in found.splits["train"]} == {0, 1}
    folders.stl10(tmp_path)
    config = load_config(overrides=overrides("STL10", tmp_path, "data.test_split=unlabeled")).data
    found = find_torchvision(config)
    assert {found.labels[row] for row in found.splits["test"]} == {-1}


def test_a_validation_split_that_is_not_there_is_split_off_and_that_is_said(tmp_path: Path):
    for split in ("train", "test"):
        folders.class_folders(tmp_path / "country211" / split, ("AA", "BB"), 20)
    index = index_of("Country211", tmp_path)
    assert {split: len(rows) for split, rows in index.splits.items()} == {"train": 36, "val": 4, "test": 40}
    assert any("validation is split off from training" in note and "valid" in note for note in index.account.notes)


def test_splits_of_other_classes_are_refused(tmp_path: Path):
    folders.class_folders(tmp_path / "country211" / "train", ("AA", "BB"), 20)
    folders.class_folders(tmp_path / "country211" / "valid", ("AA", "BB"), 20)
    folders.class_folders(tmp_path / "country211" / "test", ("BB", "CC"), 20)
    with pytest.raises(DataError, match=r"split 'test': its classes are not those of .*split 'train'.*first 'AA'"):
        index_of("Country211", tmp_path)


def test_a_set_that_is_not_for_classification_is_refused_with_what_it_holds(tmp_path: Path):
    folders.voc(tmp_path)
    with pytest.raises(DataError, match=r"an item is \(Image, dict\), and not an image with a class number"):
        index_of("VOCDetection", tmp_path)


def test_labels_of_a_set_without_a_list_are_read_one_by_one():
    index = index_of("FakeData", Path("unused"), "data.arguments.size=40", "data.arguments.num_classes=2")
    assert len(index.labels) == 40
    assert set(index.labels.tolist()) == {0, 1}
    assert any("one by one" in note for note in index.account.notes)


def test_sixteen_bits_in_a_set_of_files_are_no_white(tmp_path: Path):
    for kind, name in enumerate(("ant", "bee")):
        (tmp_path / name).mkdir()
        wide = Image.fromarray(np.full((8, 8), LEVELS[kind] * 257, dtype=np.uint16))
        for number in range(20):
            wide.save(tmp_path / name / f"{number}.png")
    check_pictures(index_of("ImageFolder", tmp_path))


def test_rows_of_a_pool_are_in_the_order_of_their_paths(tmp_path: Path):
    folders.sun397(tmp_path)
    index = index_of("SUN397", tmp_path)
    names = [index.reader.name(row) for row in range(40)]
    assert names == sorted(names)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Flower102", r"no such class; did you mean Flowers102"),
        ("utils", "no such class"),
        ("VisionDataset", r"has no length \(NotImplementedError.*; name a data set for classification"),
        ("CocoDetection", r"missing 1 required .*'annFile'; set it in data\.arguments"),
        (
            "Food101",
            r"Food101 in .*: RuntimeError: Dataset not found.*set data\.path to the folder .* or data\.download",
        ),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, name: str, words: str):
    with pytest.raises(DataError, match=words):
        index_of(name, tmp_path)


@pytest.mark.parametrize("given", ["root=x", "download=true", "train=false", "transform=x", "loader=x"])
def test_arguments_that_have_keys_or_are_no_values_are_refused(given: str):
    with pytest.raises(ConfigError, match=r"arguments holds '\w+'.*(set data\.|remove it)"):
        load_config(overrides=["data.kind=torchvision", "data.name=MNIST", f"data.arguments.{given}"])
