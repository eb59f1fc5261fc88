import os
from pathlib import Path

import pytest

from hard_ray.data.account import Tally
from hard_ray.data.layout import HIDDEN, NO_IMAGE, TEMPORARY
from hard_ray.data.listing import AGAIN, BROKEN, LOOP, SPECIAL, each_once, list_images
from hard_ray.errors import DataError
from tests.support.data_folders import HEIC, SIDECAR, fill, fill_splits, folder_index, image, put, sizes


def listed(root: Path) -> tuple[list[str], dict[str, int]]:
    """The images below a root, and how many files were left out for each reason; all files are one or the other."""
    tally = Tally()
    found = each_once(list_images(str(root), tally), lambda _: "here", tally)
    tally.used = len(found)
    assert tally.adds_up
    names = [os.path.relpath(each.path, root) for each in found]
    return names, {reason: entry.count for reason, entry in tally.left_out.items()}


@pytest.mark.parametrize(
    "hidden",
    [
        "._0.png",
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
        ".ipynb_checkpoints/0-checkpoint.png",
        "__MACOSX/cat/._0.png",
        "@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg",
        "deep/@eaDir/x.jpg",
        "lost+found/x.png",
        "$RECYCLE.BIN/x.png",
        "#recycle/x.png",
        "System Volume Information/x.png",
        ".git/objects/ab/cd",
    ],
)
def test_hidden_files_and_those_of_systems_are_no_images_at_any_level(tmp_path: Path, hidden: str):
    fill(tmp_path, "deep/down", each=2)
    put(tmp_path, {hidden: image(), f"deep/down/{hidden}": SIDECAR})
    assert listed(tmp_path) == (["deep/down/0.png", "deep/down/1.png"], {HIDDEN: 2})


def test_unknown_suffixes_are_read_by_content(tmp_path: Path):
    jpeg = image(form="JPEG")
    names = ["a.jfif", "b.jpe", "c.JPG_large", "d", "e.pjpeg", "f.jpg!d", "n01440764.10026"]
    put(tmp_path, dict.fromkeys(names, jpeg))
    put(tmp_path, {"g.webp_": image(form="WEBP"), "h.dat": image(form="GIF"), "i.x": image(form="BMP")})
    put(tmp_path, {"j.y": image(form="TIFF"), "k.z": image(form="PPM"), "l.w": image(form="JPEG2000")})
    put(tmp_path, {"not": b"hello", "empty": b"", "P5.notes": b"P5 is a norm", "m.bin": b"BM, a text of BMW cars"})
    found, left_out = listed(tmp_path)
    assert found == sorted([*names, "g.webp_", "h.dat", "i.x", "j.y", "k.z", "l.w"])
    assert left_out == {NO_IMAGE: 4}


def test_images_that_cannot_be_read_are_counted_with_the_remedy(tmp_path: Path):
    put(tmp_path, {"a.heic": HEIC, "b.HEIC": HEIC, "c.cr2": b"II*\0" + bytes(40), "d.svg": b"<svg/>", "e": HEIC})
    found, left_out = listed(tmp_path)
    assert found == []
    assert left_out == {
        ".heic images are not read: convert them to JPEG or PNG": 2,
        ".cr2 images are not read: convert them to JPEG or PNG": 1,
        ".svg images are not read: convert them to JPEG or PNG": 1,
        "an image of a format that is not read: convert it to JPEG or PNG": 1,
    }


def test_an_archive_among_images_is_said_to_be_one(tmp_path: Path):
    put(tmp_path, {"dog.tar.gz": b"x", "cat.zip": b"x", "a.png": image()})
    assert listed(tmp_path) == (["a.png"], {"an archive, which is not unpacked": 2})


def test_temporary_files_are_no_images(tmp_path: Path):
    put(tmp_path, dict.fromkeys(["a.png~", "b.jpg.part", "c.png.bak", "d.crdownload", "e.png.tmp"], image()))
    assert listed(tmp_path) == ([], {TEMPORARY: 5})


def test_a_loop_is_followed_once(tmp_path: Path):
    fill_splits(tmp_path, "train", each=20)
    (tmp_path / "train/cat/back").symlink_to("..", target_is_directory=True)
    (tmp_path / "train/dog/self").symlink_to(".", target_is_directory=True)
    (tmp_path / "train/top").symlink_to("../..", target_is_directory=True)
    (tmp_path / "again").symlink_to(".", target_is_directory=True)
    index = folder_index(tmp_path)
    assert index.classes == ("cat", "dog")
    assert sizes(index) == {"train": 36, "val": 4}
    assert index.account.files.left_out[LOOP].count == 4
    assert index.account.files.adds_up


def test_two_links_to_each_other_end(tmp_path: Path):
    fill(tmp_path / "here", "a", each=2)
    fill(tmp_path / "there", "b", each=2)
    (tmp_path / "here/a/on").symlink_to(tmp_path / "there")
    (tmp_path / "there/b/on").symlink_to(tmp_path / "here")
    found, left_out = listed(tmp_path / "here")
    assert found == ["a/0.png", "a/1.png", "a/on/b/0.png", "a/on/b/1.png"]
    assert left_out == {LOOP: 1}


def test_class_folders_may_be_links(tmp_path: Path):
    fill(tmp_path / "store", "x", "y")
    for name, target in (("cat", "x"), ("dog", "y")):
        (tmp_path / "data/train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data/train" / name).symlink_to(tmp_path / "store" / target)
    index = folder_index(tmp_path / "data")
    assert index.classes == ("cat", "dog")
    assert len(index.labels) == 12


def test_a_file_and_a_link_to_it_are_one_image(tmp_path: Path):
    fill(tmp_path, "a", each=2)
    (tmp_path / "a/00.png").symlink_to("0.png")
    (tmp_path / "a/hard.png").hardlink_to(tmp_path / "a/1.png")
    (tmp_path / "a/nowhere.png").symlink_to("no.png")
    (tmp_path / "a/round.png").symlink_to("round.png")
    (tmp_path / "a/null.png").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "a/pipe")
    assert listed(tmp_path) == (["a/0.png", "a/1.png"], {AGAIN: 2, BROKEN: 2, SPECIAL: 2})


@pytest.mark.parametrize("how", ["folder", "file", "hard"])
def test_one_file_in_two_classes_is_refused_with_both_names(tmp_path: Path, how: str):
    fill_splits(tmp_path, "train")
    if how == "folder":
        (tmp_path / "train/cow").symlink_to("cat", target_is_directory=True)
    elif how == "file":
        (tmp_path / "train/dog/x.png").symlink_to("../cat/3.png")
    else:
        (tmp_path / "train/dog/x.png").hardlink_to(tmp_path / "train/cat/3.png")
    with pytest.raises(DataError, match="one file by a link.*class 'cat' of the train split.*class '(cow|dog)' of the"):
        folder_index(tmp_path)


def test_one_file_in_two_splits_is_refused_unless_one_is_not_used(tmp_path: Path):
    fill_splits(tmp_path, "train", "val")
    (tmp_path / "test").symlink_to("val", target_is_directory=True)
    with pytest.raises(
        DataError, match="class 'cat' of the val split and in class 'cat' of the test split; remove one"
    ):
        folder_index(tmp_path)
    index = folder_index(tmp_path, "data.test_split=false")
    assert sizes(index) == {"train": 12, "val": 12}
    assert index.account.files.adds_up


def test_links_that_lead_nowhere_are_counted_and_too_many_are_refused(tmp_path: Path):
    fill_splits(tmp_path, "train")
    (tmp_path / "train/cat/x.png").symlink_to("nowhere.png")
    with pytest.raises(DataError, match=r"1 links lead nowhere beside 12 images, first .*x\.png; fetch"):
        folder_index(tmp_path)
    assert folder_index(tmp_path, "data.max_bad_fraction=0.2").account.files.left_out[BROKEN].count == 1


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(tmp_path, "a/b", "a/c")
    scandir = os.scandir

    def refused(path: str):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(DataError, match=r"a/b: the folder cannot be read \(Permission denied\); make it readable"):
        listed(tmp_path)
