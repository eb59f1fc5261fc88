import json
import os
import unicodedata
from pathlib import Path

import pytest

from hard_ray.data.account_text import account_facts
from hard_ray.data.layout import NO_IMAGE
from hard_ray.errors import DataError
from tests.support.data_folders import fill, fill_splits, folder_index, image, put, sizes


def notes(index: object) -> str:
    return "\n".join(index.account.notes)


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("Train", "Val", "Testing"), ("train", "val", "test")),
        (("training", "validation"), ("train", "val")),
        (("TRAIN", "dev"), ("train", "val")),
        (("train2017", "val2017"), ("train", "val")),
        (("train_images", "test_images"), ("train", "test")),
        (("trainval", "test"), ("train", "test")),
        (("seg_train/seg_train", "seg_test/seg_test"), ("train", "test")),
        (("train/images", "valid/images"), ("train", "val")),
        (("ILSVRC/Data/CLS-LOC/train", "ILSVRC/Data/CLS-LOC/val"), ("train", "val")),
        (("data/train", "data/test"), ("train", "test")),
    ],
)
def test_split_folders_of_usual_names_at_any_depth(tmp_path: Path, names: tuple[str, ...], splits: tuple[str, ...]):
    fill_splits(tmp_path, *names, each=20)
    index = folder_index(tmp_path)
    assert index.classes == ("cat", "dog")
    for name, split in zip(names, splits, strict=True):
        assert index.account.origins[split] == f"folder {tmp_path / name}"
        assert all(f"{tmp_path / name}/" in index.reader.name(row) for row in index.rows(split).tolist())
    assert sum(sizes(index).values()) == 40 * len(names)
    assert index.account.files.adds_up


def test_folders_that_hold_images_themselves_are_classes_whatever_their_names(tmp_path: Path):
    fill(tmp_path, "train", "boat", "test", each=20)
    index = folder_index(tmp_path)
    assert index.classes == ("boat", "test", "train")
    assert "'test', 'train' in" in notes(index)
    assert "they are taken for classes, not for splits" in notes(index)


def test_class_names_that_contain_a_word_for_a_split_are_classes(tmp_path: Path):
    fill(tmp_path, "train_station", "test_tube", "dev board", each=10)
    assert folder_index(tmp_path).classes == ("dev board", "test_tube", "train_station")


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (("train/cat", "train/dog", "boat"), "beside 'train' there is 'boat', which says no split; set all three"),
        (("test/cat", "test/dog", "cat"), "'train' is not among 'cat', 'test'"),
        (("train/cat", "val/cat", "valid/cat"), "2 names say a val split, 'val', 'valid'; set data.val_split"),
        (("train/cat", "Train/cat"), "2 names say a training split, 'Train', 'train'"),
        (("train", "val"), "holds no class folders .*it holds 12 .png.*want .*/train/CLASS/IMAGE.jpg"),
        (("cat/train", "cat/val", "dog/train", "dog/val"), "'cat' holds 'train', 'val', which are splits"),
        (("Data/CLS/train/cat", "Data/CLS/val/cat", "Data/DET/x"), "'CLS' holds .*set data.path to .*/Data/CLS"),
        (
            ("train/Cat", "train/dog", "val/cat"),
            "no class 'cat'; it has 'Cat', 'dog', and 'Cat', which differs in case",
        ),
        (
            ("train/cat", "train/dog", "val/images"),
            "6 images have no labels.*want val/CLASS/IMAGE.*data.val_split=false",
        ),
        (("train/cat", "train/dog", "val"), "6 images have no labels.*want val/CLASS/IMAGE.*data.val_split=false"),
        (("train/cat", "train/dog", "test/cow"), "the training split has no class 'cow'.*test_split=false"),
        (("train/cat", "train/dog", "test/cat", "test/cow"), "the training split has no class 'cow'.*test_split=false"),
    ],
)
def test_what_cannot_be_told_is_refused_with_names_and_remedy(tmp_path: Path, folders: tuple[str, ...], words: str):
    fill(tmp_path, *folders)
    with pytest.raises(DataError, match=words):
        folder_index(tmp_path)


@pytest.mark.parametrize("empty", ["val", "val/cat"])
def test_an_empty_validation_folder_is_not_replaced_by_chance(tmp_path: Path, empty: str):
    fill_splits(tmp_path, "train")
    (tmp_path / empty).mkdir(parents=True)
    with pytest.raises(
        DataError, match="the val split holds no image; put its images there, or set data.val_split=fal"
    ):
        folder_index(tmp_path)
    assert sizes(folder_index(tmp_path, "data.val_split=false")) == {"train": 11, "val": 1}


@pytest.mark.parametrize("place", ["test", "test/images", "test/0", "Test"])
def test_a_test_split_without_labels_is_left_out_with_a_line(tmp_path: Path, place: str):
    fill_splits(tmp_path, "train", "val")
    fill(tmp_path, place, each=5)
    index = folder_index(tmp_path)
    assert sizes(index) == {"train": 12, "val": 12}
    assert index.final_split == "val"
    assert index.account.files.left_out["the test split has no labels"].count == 5
    assert "its 5 images have no labels" in notes(index)
    with pytest.raises(DataError, match="5 images have no labels.*or set data.test_split=false to do without it"):
        folder_index(tmp_path, f"data.test_split={place.partition('/')[0]}")


def test_unlabelled_validation_images_can_be_left_out(tmp_path: Path):
    fill_splits(tmp_path, "train", each=20)
    fill(tmp_path, "val/images")
    put(tmp_path, {"val/val_annotations.txt": b"0.png cat"})
    index = folder_index(tmp_path, "data.val_split=false")
    assert sizes(index) == {"train": 36, "val": 4}
    assert index.account.files.left_out["the split 'val': data.val_split is false"].count == 6


def test_splits_of_more_images_and_folders_without_images_are_left_out(tmp_path: Path):
    fill_splits(tmp_path, "train", "val")
    fill(tmp_path, "unlabeled")
    put(tmp_path, {"unlabeled/x.jfif": image(form="JPEG")})
    put(tmp_path, {"annotations/a.xml": b"<x/>", "README.md": b"hello", "train/loose.png": image()})
    index = folder_index(tmp_path)
    assert sizes(index) == {"train": 12, "val": 12}
    left_out = {reason: entry.count for reason, entry in index.account.files.left_out.items()}
    assert left_out == {
        NO_IMAGE: 2,
        "the split 'unlabeled': it is neither train, val nor test": 7,
        "in no class folder": 1,
    }
    assert index.account.files.adds_up
    assert not index.account.files.by_content


def test_a_folder_beside_the_splits_is_left_out_once_all_splits_are_named(tmp_path: Path):
    fill_splits(tmp_path, "train", "val", "mini")
    index = folder_index(tmp_path, "data.val_split=val", "data.test_split=false")
    assert sizes(index) == {"train": 12, "val": 12}
    assert index.account.files.left_out["the split 'mini': it is neither train, val nor test"].count == 12


def test_names_of_splits_may_be_classes_if_that_is_said(tmp_path: Path):
    fill_splits(tmp_path, "train", "boat", classes=("old", "new"), each=10)
    assert folder_index(tmp_path, "data.train_split=false").classes == ("boat", "train")


def test_a_pool_whose_file_names_all_say_splits_is_refused(tmp_path: Path):
    put(
        tmp_path, {f"{name}/{split}_{n}.png": image() for name in "ab" for split in ("train", "test") for n in range(5)}
    )
    with pytest.raises(DataError, match="every image's name says test or train, and a split by chance would mix them"):
        folder_index(tmp_path)


def test_two_unicode_forms_of_a_name_are_one_class(tmp_path: Path):
    composed, decomposed = (unicodedata.normalize(form, "grün") for form in ("NFC", "NFD"))
    fill(tmp_path, f"train/{composed}", f"train/{decomposed}", "train/dog", f"val/{decomposed}", "val/dog")
    index = folder_index(tmp_path)
    assert index.classes == ("dog", composed)
    assert [int((index.labels[index.rows(split)] == 1).sum()) for split in ("train", "val")] == [12, 6]
    assert "are one class, 'grün', in Unicode" in notes(index)


def test_classes_without_images_and_names_that_are_nearly_equal_are_said(tmp_path: Path):
    fill(tmp_path, "train/cat", "train/Cat", "train/dog ", "train/dog", "val/dog")
    (tmp_path / "train/cow").mkdir()
    index = folder_index(tmp_path)
    assert index.classes == ("Cat", "cat", "cow", "dog", "dog ")
    assert "1 of 5 classes have no image in train: 'cow'" in notes(index)
    assert "4 of 5 classes have no image in val: 'Cat', 'cat', 'cow', 'dog '" in notes(index)
    assert "'Cat', 'cat' differ in case or spaces alone and are 2 classes" in notes(index)
    assert "'dog', 'dog ' differ in case or spaces alone" in notes(index)


@pytest.mark.parametrize("place", ["train_test_split.txt", "meta/test.json", "splits/val_list.csv"])
def test_files_that_list_splits_are_pointed_at(tmp_path: Path, place: str):
    fill(tmp_path, "cat", "dog")
    put(tmp_path, {place: b"cat/0.png 1", "classes.txt": b"cat"})
    assert f"'{tmp_path / place}' may list splits; such files are not read" in notes(folder_index(tmp_path))


def test_one_split_taken_for_the_whole_is_said(tmp_path: Path):
    fill_splits(tmp_path, "train", "val")
    assert f"beside 'train', 'val'; set it to {tmp_path} to use them all" in notes(folder_index(tmp_path / "train"))


def test_names_that_are_no_text_are_left_out_or_refused(tmp_path: Path):
    fill_splits(tmp_path, "train")
    (tmp_path / os.fsdecode(b"train/cat/\xff.png")).write_bytes(image())
    (tmp_path / os.fsdecode(b"train/cat/\xff.txt")).write_bytes(b"x")
    index = folder_index(tmp_path)
    assert index.account.files.left_out["a name that is not UTF-8: rename it"].count == 1
    assert json.dumps(account_facts(index), ensure_ascii=False).encode()
    (tmp_path / os.fsdecode(b"train/\xff")).mkdir()
    with pytest.raises(DataError, match="whose name is not UTF-8; rename it"):
        folder_index(tmp_path)


def test_a_class_name_of_two_lines_is_refused(tmp_path: Path):
    fill(tmp_path, "train/a\nb", "train/c")
    with pytest.raises(DataError, match=r"the class 'a\\nb' is empty or has a line break in its name; rename it"):
        folder_index(tmp_path)


def test_a_folder_of_what_cannot_be_read_says_what_it_holds(tmp_path: Path):
    put(tmp_path, {f"train/{name}/{n}.heic": b"" for name in ("cat", "dog") for n in range(3)})
    with pytest.raises(
        DataError, match=r"no image in them \(it holds 6 .heic\).*left out: 6 .heic images are not read"
    ):
        folder_index(tmp_path)
