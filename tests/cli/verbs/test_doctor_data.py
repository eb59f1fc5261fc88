"""`hardray doctor --data` prints the account of a data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import invoke
from tests.support.data_folders import SIDECAR, fill_splits, put, samples, write_rows, write_tar
from tests.support.without_labels import heap


def words(text: str) -> str:
    """The text without the breaks of lines, which may cut a path."""
    return "".join(text.split())


def test_doctor_lists_a_folder_of_images(tmp_path: Path):
    fill_splits(tmp_path, "train", "val")
    put(tmp_path, {"train/cat/._0.png": SIDECAR})
    done = invoke("doctor", "--data", str(tmp_path))
    assert done.exit_code == 0, done.stderr
    assert words(f"25 .png; 24 used split train: 12 images, folder {tmp_path}/train") in words(done.stdout)
    assert words("1: hidden, or made by an operating system") in words(done.stdout)
    assert "nothing is wrong" not in done.stdout


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_doctor_takes_the_kind_of_data_from_the_files_and_says_so(tmp_path: Path, kind: str):
    if kind == "parquet":
        write_rows(tmp_path / "train-0.parquet", 0, 20)
    else:
        write_tar(tmp_path / "train-0.tar", samples(0, 20))
    done = invoke("doctor", "--data", str(tmp_path))
    assert words(f"data.kind is taken to be {kind}, from the names of the files") in words(done.stdout)
    assert words("train: 18 images, 1 file named 'train'") in words(done.stdout)


def test_doctor_lists_the_data_of_a_configuration(tmp_path: Path):
    write_tar(tmp_path / "data/train-0.tar", samples(0, 20, label="y"))
    (tmp_path / "c.yaml").write_text(f"data: {{kind: webdataset, path: {tmp_path}/data, label_key: y}}")
    assert words("train: 18 images") in words(invoke("doctor", "--data", str(tmp_path / "c.yaml")).stdout)
    done = invoke("doctor", "--data", str(tmp_path / "data"))
    assert done.exit_code == 1
    assert words("20 images have no member 's0'.cls; set data.label_key") in words(done.stderr)
    assert words("there is no such folder; set data.path") in words(invoke("doctor", "--data", "/no/where").stderr)


def test_images_without_labels_are_listed_without_a_teacher(tmp_path: Path):
    images = heap(tmp_path / "heap")
    (tmp_path / "c.yaml").write_text(f"data: {{kind: images, path: {images}}}")
    for given in (("--data", str(tmp_path / "c.yaml")), ("--data", str(images), "data.kind=images")):
        done = invoke("doctor", *given)
        assert done.exit_code == 0, done.stderr
        assert words("none: the images have no labels") in words(done.stdout)
