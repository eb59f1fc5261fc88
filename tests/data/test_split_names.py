from pathlib import Path

import pytest

from hard_ray.config.loader import load_config
from hard_ray.data.sources.shard_names import name_shards
from hard_ray.data.split_names import choose_splits, cleaned, kinds_in, whole_kind
from hard_ray.errors import ConfigError, DataError
from tests.support.data_folders import samples, sizes, tar_index, write_tar


def splits_of(paths: list[str], **settings: str) -> dict[str, list[str]]:
    """The paths of each split."""
    overrides = [f"data.{key}={value}" for key, value in settings.items()]
    config = load_config(overrides=["data.kind=webdataset", "data.path=/x", *overrides]).data
    names, kinds = name_shards(config, paths, where="data.path /x")
    choice = choose_splits(config, kinds, where="data.path /x")
    found = {
        split: [path for path, own in zip(paths, names, strict=True) if own == name]
        for split, name in choice.splits.items()
    }
    unused = [path for path, own in zip(paths, names, strict=True) if own in choice.unused]
    assert sorted([*unused, *(path for own in found.values() for path in own)]) == sorted(paths) or not found
    return found


@pytest.mark.parametrize(
    ("train", "held_out", "split"),
    [
        ("imagenet1k-train-0000.tar", "imagenet1k-validation-00.tar", "val"),
        ("plain_text/train-00000-of-00001.parquet", "plain_text/test-00000-of-00001.parquet", "test"),
        ("default/train/0000.parquet", "default/test/0000.parquet", "test"),
        ("split=train/a.parquet", "split=val/a.parquet", "val"),
        ("data/train/a.tar", "data/valid/a.tar", "val"),
        ("train_00.tar", "dev.0.tar", "val"),
        ("TRAIN-0.TAR", "Testing-0.TAR", "test"),
        ("training-3f2a9c01.parquet", "eval-00.parquet", "val"),
        ("train2017-0.tar", "val2017-0.tar", "val"),
        ("trainval-0.tar", "test-0.tar", "test"),
        ("imagenet_train_val/0.tar", "imagenet_test/0.tar", "test"),
        ("part-0000-train.parquet", "part-0001-test.parquet", "test"),
        ("000/train.tar", "000/val.tar", "val"),
        ("ImagesTrain-0.tar", "ImagesVal-0.tar", "val"),
        ("mytest-set/train-0.tar", "mytest-set/val-0.tar", "val"),
        ("test-bed/train-0.tar", "test-bed/val-0.tar", "val"),
        ("partial-train/0.parquet", "partial-test/0.parquet", "test"),
        ("train.tar", "held-out.tar", "test"),
        ("train_test_split/train-0.tar", "train_test_split/test-0.tar", "test"),
        ("data_train_val_test/train/0.tar", "data_train_val_test/val/0.tar", "val"),
        ("shard-train-0-rank1.tar", "shard-val-0-rank1.tar", "val"),
    ],
)
def test_a_name_that_says_a_split_decides_it(train: str, held_out: str, split: str):
    assert splits_of([train, held_out]) == {"train": [train], split: [held_out]}


def test_shards_of_a_split_are_together_whatever_their_numbers_and_folders():
    paths = ["train/000/0.tar", "train/001/0.tar", "val/000/0.tar"]
    assert splits_of(paths) == {"train": paths[:2], "val": paths[2:]}
    paths = [f"year={year}/split={split}/0.parquet" for split in ("train", "test") for year in (2020, 2021)]
    assert splits_of(paths) == {"train": paths[:2], "test": paths[2:]}
    paths = ["train-00000-of-00002-3f2a9cdeadbeef.parquet", "train-00001-of-00002-abcdefabcdef.parquet"]
    assert splits_of(paths) == {"train": paths}


@pytest.mark.parametrize("name", ["trainer", "contest", "latest", "valley", "devil", "strain", "evaluated", "00012"])
def test_words_that_only_begin_or_end_like_a_split_say_none(name: str):
    assert kinds_in(f"{name}-0001") == set()
    assert splits_of([f"{name}-0.tar", f"{name}-1.tar"]) == {}


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["train/val-0.tar", "train/train-0.tar"], "more than one: 'train/val-0'"),
        (["train_test/0.tar", "train_test/1.tar"], "more than one: 'train_test/0', 'train_test/1'"),
        (["train_00.tar", "training-00.tar"], "2 names say a training split, 'train', 'training'"),
        (["train-0.tar", "dev-0.tar", "eval-0.tar"], "2 names say a val split, 'dev', 'eval'; set data.val_split"),
        (["train-0.tar", "test_a-0.tar", "test_b-0.tar"], "'test_a', 'test_b'; set data.test_split"),
        (["train-0.tar", "val-0.tar", "00001.tar"], "beside 'train', 'val' there is '00001', which says no split"),
        (["val-0.tar", "x-0.tar"], "'train' is not among 'val', 'x'"),
        (["v1/train-0.parquet", "v2/train-0.parquet"], "'v1/train', 'v2/train'; set data.train_split"),
        (["trainval-0.tar", "val-0.tar"], "'trainval' usually holds the images of 'val' too; set data.val_split"),
    ],
)
def test_a_split_that_cannot_be_told_is_refused_with_the_names(paths: list[str], words: str):
    with pytest.raises(DataError, match=words):
        splits_of(paths)


def test_the_configuration_settles_what_names_do_not():
    paths = ["train-0.tar", "test_a-0.tar", "test_b-0.tar"]
    assert splits_of(paths, test_split="test_a") == {"train": paths[:1], "test": paths[1:2]}
    assert splits_of(["train-0.tar", "foo.tar"], val_split="false", test_split="false") == {"train": ["train-0.tar"]}
    assert splits_of(["train-0.tar", "foo.tar"], val_split="foo") == {"train": ["train-0.tar"], "val": ["foo.tar"]}
    assert splits_of(["train-0.tar", "val-0.tar"], val_split="false") == {"train": ["train-0.tar"]}
    assert splits_of(["train-0.tar", "val-0.tar"], train_split="false") == {}
    several = ["v1/train-0.tar", "v2/train-0.tar", "v1/test-0.tar"]
    assert splits_of(several, train_split="v1/train") == {"train": several[:1], "test": several[2:]}
    assert splits_of(several, val_split="false", test_split="test") == {"train": several[:2], "test": several[2:]}


def test_splits_of_more_images_are_left_out():
    assert splits_of(["train-0.tar", "unlabeled-0.tar"]) == {"train": ["train-0.tar"]}
    assert splits_of(["train-0.tar", "train_extra-0.tar"]) == {"train": ["train-0.tar"]}


def test_a_whole_name_says_a_split_and_a_part_does_not():
    assert [whole_kind(name) for name in ("Train", "val_images", "test2007", "dev-set")] == [
        "train",
        "val",
        "test",
        "val",
    ]
    assert [whole_kind(name) for name in ("train_station", "test tube", "dog", "dev board")] == [None] * 4
    assert cleaned("imagenet1k-train-0003-of-0040") == "imagenet1k-train"
    assert cleaned("validation_matched-00000-of-00001") == "validation_matched"


def test_held_out_rows_are_never_split_again(tmp_path: Path):
    write_tar(tmp_path / "imagenet1k-train-0000.tar", samples(0, 40))
    write_tar(tmp_path / "imagenet1k-validation-00.tar", samples(100, 20))
    index = tar_index(tmp_path)
    assert sizes(index) == {"train": 40, "val": 20}
    assert {index.reader.name(row).partition("[")[0] for row in index.rows("val").tolist()} == {
        str(tmp_path / "imagenet1k-validation-00.tar")
    }
    assert index.account.origins["val"].endswith(f"first {tmp_path / 'imagenet1k-validation-00.tar'}")


def test_without_a_test_split_a_pool_is_split_in_two(tmp_path: Path):
    write_tar(tmp_path / "00000.tar", samples(0, 40))
    assert sizes(tar_index(tmp_path)) == {"train": 32, "val": 4, "test": 4}
    assert sizes(tar_index(tmp_path, "data.test_split=false")) == {"train": 36, "val": 4}
    assert any("one pool" in note for note in tar_index(tmp_path).account.notes)


def test_a_pool_whose_images_all_name_splits_is_refused(tmp_path: Path):
    write_tar(tmp_path / "all.tar", [*samples(0, 20, stem="train/{}"), *samples(20, 20, stem="val/{}")])
    with pytest.raises(DataError, match="every image's name says train or val.*data.train_split=false"):
        tar_index(tmp_path)
    assert len(tar_index(tmp_path, "data.train_split=false").labels) == 40


@pytest.mark.parametrize(("key", "value"), [("val_split", "true"), ("test_split", "3"), ("train_split", "null")])
def test_a_split_is_a_name_or_false(key: str, value: str):
    with pytest.raises(
        ConfigError, match=rf"data.{key}: .*want the name of a split, in quotes if it is a number, or fal"
    ) as found:
        load_config(overrides=["data.kind=parquet", "data.path=/x", f"data.{key}={value}"])
    assert len(found.value.problems) == 1
