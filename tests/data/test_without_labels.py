"""Images without labels: found whatever the folders are called, and beside labelled ones."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hard_ray.config.loader import load_config
from hard_ray.data.account_text import account_facts, account_lines
from hard_ray.data.index import NO_LABEL
from hard_ray.data.schedule import JointSchedule, Schedule, train_schedule
from hard_ray.data.sources.build import build_index
from hard_ray.errors import ConfigError, DataError
from tests.support.data_folders import fill, fill_splits, image, index_of, put, samples, write_tar

WEIGHTS = ("teacher.model=local-dir:anywhere", "objective.w_ce=0", "experiment.controls=[]")


def heap_index(root: Path, *overrides: str):
    return index_of("data.kind=images", f"data.path={root}", *WEIGHTS, *overrides)


def test_a_folder_of_any_depth_is_one_pool_split_by_seed(tmp_path: Path):
    fill(tmp_path, ".", "a", "a/b/c", "train", each=10)
    index = heap_index(tmp_path)
    assert {split: len(rows) for split, rows in index.splits.items()} == {"train": 32, "val": 4, "test": 4}
    assert not index.has_labels
    assert index.classes == ()
    assert (index.labels == NO_LABEL).all()
    other = heap_index(tmp_path, "data.split_seed=1")
    assert not np.array_equal(index.rows("test"), other.rows("test"))


def test_the_names_of_folders_change_nothing(tmp_path: Path):
    one, other = fill(tmp_path / "one", "cat", "dog"), fill(tmp_path / "other", "a/x", "b")
    splits = [heap_index(root).splits for root in (one, other)]
    for split in ("train", "val", "test"):
        np.testing.assert_array_equal(splits[0][split], splits[1][split])


def test_folders_named_as_splits_are_said(tmp_path: Path):
    index = heap_index(fill_splits(tmp_path, "train", "test"))
    assert any("'train', 'test'" in note and "one pool" in note for note in index.account.notes)


def test_the_account_says_that_there_are_no_labels(tmp_path: Path):
    index = heap_index(fill(tmp_path, "a"))
    assert ("classes", "none: the images have no labels") in account_lines(index)
    assert "classes" not in account_facts(index)


def test_an_empty_folder_says_what_it_holds(tmp_path: Path):
    with pytest.raises(DataError, match=r"holds no image \(it holds 1 \.txt\)"):
        heap_index(put(tmp_path, {"a/notes.txt": b"no image"}))


def test_parquet_without_a_label_column(tmp_path: Path):
    pq.write_table(pa.table({"image": [image(number) for number in range(20)]}), tmp_path / "heap.parquet")
    overrides = ["data.kind=parquet", f"data.path={tmp_path}", *WEIGHTS]
    with pytest.raises(DataError, match=r"data\.label_column=null if the images have no labels"):
        index_of(*overrides)
    index = index_of(*overrides, "data.label_column=null")
    assert not index.has_labels
    assert len(index.rows("train")) == 16


def test_a_label_column_that_is_there_is_not_read(tmp_path: Path):
    labels = pa.array([{"odd": number} for number in range(20)])
    table = pa.table({"image": [image(number) for number in range(20)], "label": labels})
    pq.write_table(table, tmp_path / "heap.parquet")
    index = index_of("data.kind=parquet", f"data.path={tmp_path}", "data.label_column=null", *WEIGHTS)
    assert (index.labels == NO_LABEL).all()


def test_webdataset_without_labels(tmp_path: Path):
    write_tar(tmp_path / "heap-000.tar", [member for member in samples(0, 20) if member[0].endswith("png")])
    overrides = ["data.kind=webdataset", f"data.path={tmp_path}", *WEIGHTS]
    with pytest.raises(DataError, match=r"data\.label_key=null if no image has a label"):
        index_of(*overrides)
    index = index_of(*overrides, "data.label_key=null")
    assert not index.has_labels
    assert len(index.labels) == 20


def joint(tmp_path: Path, *overrides: str):
    """Twelve labelled images of two classes in train, and a heap of forty."""
    labelled = fill_splits(tmp_path / "labelled", "train", "val", each=6)
    heap = fill(tmp_path / "heap", "x", "y", each=20)
    given = ["data.kind=image_folder", f"data.path={labelled}", "data.unlabelled.kind=images"]
    config = load_config(overrides=[*given, f"data.unlabelled.path={heap}", *overrides]).data
    return build_index(config), config


def test_unlabelled_images_join_the_training_split_alone(tmp_path: Path):
    index, _ = joint(tmp_path)
    assert index.has_labels
    assert index.classes == ("cat", "dog")
    assert {split: len(rows) for split, rows in index.splits.items()} == {"train": 52, "val": 12}
    assert len(index.unlabelled("train")) == 40
    assert not len(index.unlabelled("val"))
    assert index.reader.name(int(index.unlabelled("train")[-1])).endswith("heap/y/9.png")
    assert index.reader.read([0, int(index.unlabelled("train")[3])])[1] == image(11)
    assert account_facts(index)["classes"]["largest"]["images"] == 6


def test_a_labelled_file_in_the_heap_is_left_out_and_said(tmp_path: Path):
    fill(tmp_path / "heap", "x", each=20)
    (tmp_path / "heap" / "again").symlink_to(tmp_path / "labelled" / "val" / "cat")
    index, _ = joint(tmp_path)
    assert len(index.unlabelled("train")) == 40
    assert any("6 left out: a file of the labelled data too" in note for note in index.account.notes)


def test_a_heap_of_labelled_files_alone_is_refused(tmp_path: Path):
    labelled = fill_splits(tmp_path, "train", "val")
    with pytest.raises(DataError, match=r"data\.unlabelled\.path .*each of its 24 images is one of the labelled data"):
        index_of(
            "data.kind=image_folder",
            f"data.path={labelled}",
            "data.unlabelled.kind=images",
            f"data.unlabelled.path={labelled}",
        )


def test_errors_name_the_keys_of_the_heap(tmp_path: Path):
    with pytest.raises(DataError, match=r"data\.unlabelled\.path .*there is no such folder"):
        index_of(
            "data.kind=image_folder",
            f"data.path={fill_splits(tmp_path, 'train', 'val')}",
            "data.unlabelled.kind=images",
            f"data.unlabelled.path={tmp_path / 'nowhere'}",
        )


@pytest.mark.parametrize(("share", "count"), [(0.5, 5), (0.75, 8), (0.1, 1)])
def test_each_batch_has_its_share_of_images_without_labels(tmp_path: Path, share: float, count: int):
    index, config = joint(tmp_path, f"data.unlabelled_share={share}")
    schedule = train_schedule(index, config, batch_size=10, seed=3)
    rows, _ = schedule.take(np.arange(200))
    assert ((index.labels[rows] == NO_LABEL).reshape(20, 10).sum(axis=1) == count).all()


def test_each_kind_goes_through_its_own_images_by_its_own_epochs(tmp_path: Path):
    index, config = joint(tmp_path)
    rows, epochs = train_schedule(index, config, batch_size=12, seed=0).take(np.arange(12 * 12))
    labelled = index.labels[rows] != NO_LABEL
    for epoch in range(3):  # 6 of 12 in a batch: two batches are a pass of the labelled
        seen = rows[labelled & (epochs == epoch)]
        assert sorted(seen) == sorted(index.rows("train")[:12])
    heap = rows[~labelled & (epochs == 0)]
    assert len(set(heap)) == len(heap) == 36  # of 40, in batches of 6


def test_the_images_of_an_update_do_not_depend_on_the_number_of_workers(tmp_path: Path):
    index, config = joint(tmp_path)
    whole = train_schedule(index, config, batch_size=10, seed=0)
    parts = [train_schedule(index, config, batch_size=10, seed=0, rank=rank, world_size=3) for rank in range(3)]
    assert isinstance(whole, JointSchedule)
    for batch in range(12):
        together = [part.take(np.arange(batch * part.local_batch, (batch + 1) * part.local_batch)) for part in parts]
        rows, epochs = whole.take(np.arange(batch * 10, (batch + 1) * 10))
        np.testing.assert_array_equal(np.concatenate([each[0] for each in together]), rows)
        np.testing.assert_array_equal(np.concatenate([each[1] for each in together]), epochs)


def test_an_unreadable_image_gives_way_to_one_of_its_kind(tmp_path: Path):
    index, config = joint(tmp_path)
    schedule = train_schedule(index, config, batch_size=10, seed=0)
    last = int(index.rows("train")[11])
    assert index.labels[schedule.after(last, 1)] != NO_LABEL
    assert index.labels[schedule.after(int(index.rows("train")[-1]), 1)] == NO_LABEL


def test_a_training_on_labels_leaves_the_heap_out(tmp_path: Path):
    index, config = joint(tmp_path)
    schedule = train_schedule(index, config.model_copy(update={"unlabelled": None}), batch_size=6, seed=0)
    assert isinstance(schedule, Schedule)
    np.testing.assert_array_equal(schedule.rows, index.rows("train")[:12])


def test_a_share_of_no_image_is_refused(tmp_path: Path):
    index, config = joint(tmp_path, "data.unlabelled_share=0.01")
    with pytest.raises(DataError, match=r"unlabelled_share 0\.01 of optim\.batch_size 8 is 0 images"):
        train_schedule(index, config, batch_size=8, seed=0)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["objective.w_ce=0.5"], r"objective\.w_ce=0"),
        (["objective.kind=kd", "augmentor.kind=identity"], r"objective\.alpha=1"),
        (["objective.kind=dkd", "augmentor.kind=identity"], r"objective\.kind dkd needs them"),
        (["objective.kind=cross_entropy", "augmentor.kind=identity"], r"objective\.kind cross_entropy needs them"),
        (["experiment.controls=[labels_only]"], r"labels_only, which learns from labels alone"),
        (["teacher.model=hardray_cnn"], r"hardray fit-head --kind prototypes"),
        (["data.unlabelled.kind=images", "data.unlabelled.path=x"], r"kind images has no labels"),
    ],
)
def test_what_needs_labels_is_refused_with_what_to_do(overrides: list[str], words: str):
    base = ["data.kind=images", "data.path=x", "teacher.model=local-dir:t", "experiment.controls=[]"]
    with pytest.raises(ConfigError, match=words):
        load_config(overrides=[*base, *overrides])


@pytest.mark.parametrize("kind", ["dkd", "cross_entropy"])
def test_beside_a_heap_what_needs_every_label_is_refused(kind: str):
    with pytest.raises(ConfigError, match=r"data\.unlabelled has no labels"):
        load_config(
            overrides=[
                "data.kind=image_folder",
                "data.path=x",
                "data.unlabelled.kind=images",
                "data.unlabelled.path=y",
                f"objective.kind={kind}",
                "augmentor.kind=identity",
            ]
        )


def test_fewer_images_than_a_batch_takes_of_their_kind_are_refused(tmp_path: Path):
    index, config = joint(tmp_path, "data.unlabelled_share=0.25")
    with pytest.raises(DataError, match=r"takes 24 images that have a label, and train has 12"):
        train_schedule(index, config, batch_size=32, seed=0)
