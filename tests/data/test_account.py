import json
from pathlib import Path

import pytest

from hard_ray.data.account import Tally
from hard_ray.data.account_text import account_facts, account_lines, say_account
from tests.support.data_folders import (
    SIDECAR,
    fill_splits,
    folder_index,
    image,
    index_of,
    put,
    sizes,
    write_rows,
)


def test_a_tally_adds_up_only_if_nothing_is_missing():
    tally = Tally()
    tally.find(".png", count=3)
    tally.find("")
    tally.used = 2
    assert not tally.adds_up
    tally.leave_out("no image", "a", count=2)
    tally.leave_out("no image", "b", count=0)
    assert tally.adds_up
    assert tally.found == {".png": 3, "no suffix": 1}
    assert tally.left_out["no image"].example == "a"


def test_the_account_names_files_splits_classes_and_what_is_left_out(tmp_path: Path):
    fill_splits(tmp_path, "train", each=20)
    put(tmp_path, {"train/cat/x.jpe": image(form="JPEG"), "train/cat/._0.png": SIDECAR, "train/dog/a.heic": b""})
    index = folder_index(tmp_path)
    assert account_lines(index) == [
        ("files", "41 .png, 1 .jpe, 1 .heic; 41 used"),
        ("split", f"train: 37 images, folder {tmp_path}/train"),
        ("split", "val: 4 images, split off from the training split by data.split_seed 0"),
        ("classes", "2; in train from 'dog' with 18 to 'cat' with 19 images"),
        ("left out", f"1: hidden, or made by an operating system, first {tmp_path}/train/cat/._0.png"),
        ("left out", f"1: .heic images are not read: convert them to JPEG or PNG, first {tmp_path}/train/dog/a.heic"),
        ("note", "files are images by their content and are used: 1 of .jpe"),
    ]
    said: list[str] = []
    say_account(index, said.append)
    assert [line.partition(":")[0] for line in said] == ["left out", "left out", "note"]


def test_the_facts_are_json_and_hold_the_same(tmp_path: Path):
    fill_splits(tmp_path, "train", "val")
    put(tmp_path, {"notes.txt": b"x"})
    facts = json.loads(json.dumps(account_facts(folder_index(tmp_path))))
    assert facts["files"] == {
        "found": {".png": 24, ".txt": 1},
        "used": 24,
        "left_out": [{"reason": "no image", "count": 1, "first": f"{tmp_path}/notes.txt"}],
    }
    assert facts["splits"]["val"] == {"images": 12, "from": f"folder {tmp_path}/val"}
    assert facts["classes"] == {
        "count": 2,
        "smallest": {"name": "cat", "images": 6},
        "largest": {"name": "cat", "images": 6},
    }
    assert facts["notes"] == []


def test_intact_data_has_nothing_to_say(tmp_path: Path):
    fill_splits(tmp_path, "train", "val", "test")
    for index in (folder_index(tmp_path), index_of("data.kind=digits")):
        said: list[str] = []
        say_account(index, said.append)
        assert said == []


@pytest.mark.parametrize("given", [[], ["data.val_split=false"]])
def test_a_parquet_test_split_of_minus_ones_is_left_out(tmp_path: Path, given: list[str]):
    write_rows(tmp_path / "train-0.parquet", 0, 40)
    write_rows(tmp_path / "validation-0.parquet", 50, 10)
    write_rows(tmp_path / "test-0.parquet", 100, 20, label=-1)
    index = index_of("data.kind=parquet", f"data.path={tmp_path}", *given)
    assert sizes(index) == ({"train": 36, "val": 4} if given else {"train": 40, "val": 10})
    assert index.final_split == "val"
    assert index.account.items.left_out["the test split has no labels"].count == 20
    assert "there is no test split, and the student is measured on val" in index.account.notes[-1]


def test_rows_in_a_configs_folder_keep_their_splits(tmp_path: Path):
    write_rows(tmp_path / "plain_text/train-00000-of-00001.parquet", 0, 40)
    write_rows(tmp_path / "plain_text/test-00000-of-00001.parquet", 100, 20)
    assert sizes(index_of("data.kind=parquet", f"data.path={tmp_path}")) == {"train": 36, "val": 4, "test": 20}
