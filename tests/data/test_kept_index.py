"""The kept index: mapped arrays that are those of the first start, made anew when a file has changed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from hard_ray.config.data import DataConfig
from hard_ray.data import kept_index
from hard_ray.data.index import ImageIndex
from hard_ray.data.kept_index import kept_indexes, kept_parts
from hard_ray.data.mapped import Mapped, Names
from hard_ray.data.sources import parts, webdataset
from hard_ray.data.sources.build import build_index
from hard_ray.errors import DataError
from tests.support.data_folders import (
    fill,
    fill_splits,
    folder_index,
    put,
    samples,
    tar_index,
    write_rows,
    write_tar,
)


@pytest.fixture(autouse=True)
def keeps_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kept_index, "LEAST_IMAGES", 1)
    monkeypatch.setenv("HARDRAY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def tars(root: Path) -> Path:
    for number in range(4):
        write_tar(root / f"train-{number}.tar", samples(10 * number, 10))
    return root


def parquets(root: Path) -> Path:
    for number in range(4):
        write_rows(root / f"train-{number}.parquet", 10 * number, 10)
    return root


KINDS = {
    "image_folder": lambda root: fill_splits(root, "train", "val", each=20),
    "images": lambda root: fill(root, "a", "b/c", each=20),
    "webdataset": tars,
    "parquet": parquets,
}


def index(kind: str, root: Path) -> ImageIndex:
    return build_index(TypeAdapter[DataConfig](DataConfig).validate_python({"kind": kind, "path": root}))


def as_made(kind: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> ImageIndex:
    with monkeypatch.context() as patch:
        patch.setattr(kept_index, "LEAST_IMAGES", 10**9)
        patch.setattr(kept_index, "load", lambda *_: None)
        return index(kind, root)


def same(one: ImageIndex, other: ImageIndex) -> bool:
    rows = range(len(one.labels))
    return (
        one.fingerprint() == other.fingerprint()
        and one.account.to_json() == other.account.to_json()
        and [one.reader.name(row) for row in rows] == [other.reader.name(row) for row in rows]
        and one.reader.read(list(rows)) == other.reader.read(list(rows))
        and (one.shard is None) == (other.shard is None)
        and (one.shard is None or np.array_equal(one.shard, other.shard))
    )


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_index_of_the_first_start(kind: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    KINDS[kind](data)
    made = as_made(kind, data, monkeypatch)
    first, second = index(kind, data), index(kind, data)
    assert not isinstance(made.labels, Mapped)
    assert isinstance(first.labels, Mapped) and isinstance(second.labels, Mapped)
    assert same(made, first) and same(made, second)


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_start_reads_no_file(kind: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    KINDS[kind](data)
    first = index(kind, data)
    monkeypatch.setattr("hard_ray.data.sources.build._find", None)
    assert index(kind, data).fingerprint() == first.fingerprint()


def change_added(root: Path) -> None:
    some = next(path for path in sorted(root.rglob("*")) if path.is_file())
    shutil.copy(some, some.with_name(f"{some.stem}9{some.suffix}"))


def change_lost(root: Path) -> None:
    next(path for path in sorted(root.rglob("*")) if path.is_file()).unlink()


def change_renamed(root: Path) -> None:
    some = next(path for path in sorted(root.rglob("*")) if path.is_file())
    some.rename(some.with_name(f"{some.stem}9{some.suffix}"))


@pytest.mark.parametrize("change", [change_added, change_lost, change_renamed])
@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_listing_is_noticed(kind: str, change: object, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    KINDS[kind](data)
    index(kind, data)
    change(data)  # type: ignore[operator]
    assert same(index(kind, data), as_made(kind, data, monkeypatch))


def test_a_link_that_leads_elsewhere_is_noticed(data: Path, tmp_path: Path) -> None:
    fill_splits(data, "train", "val")
    (data / "train/cat/x.png").symlink_to(data / "train/cat/0.png")
    before = folder_index(data)
    assert before.account.files.left_out
    (data / "train/cat/x.png").unlink()
    (data / "train/cat/x.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="1 links lead nowhere"):
        folder_index(data)


def test_a_file_known_by_its_content_is_looked_at_again(data: Path) -> None:
    fill_splits(data, "train", "val")
    put(data, {"train/cat/odd": b"text"})
    before = len(folder_index(data).labels)
    shutil.copy(data / "train/cat/0.png", data / "train/cat/odd")
    assert len(folder_index(data).labels) == before + 1


def test_a_changed_shard_is_indexed_anew_it_alone(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tars(data)
    tar_index(data)
    asked: list[str] = []
    read = webdataset._read

    def counted(path: Path, config: object) -> parts.Part:
        asked.append(path.name)
        return read(path, config)  # type: ignore[arg-type]

    monkeypatch.setattr(webdataset, "_read", counted)
    write_tar(data / "train-2.tar", samples(20, 7))
    found = tar_index(data)
    assert asked == ["train-2.tar"]
    assert len(found.labels) == 37
    assert found.account.said == [f"1 of 4 shards are new or changed and were indexed: {data / 'train-2.tar'}"]


def test_damaged_files_of_the_index_are_made_anew(data: Path) -> None:
    tars(data)
    first = tar_index(data).fingerprint()
    (folder,) = kept_indexes().iterdir()
    (folder / "labels.npy").write_bytes(b"")
    for path in kept_parts().rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:100])
    assert tar_index(data).fingerprint() == first
    (folder / "index.json").write_text("{")
    assert tar_index(data).fingerprint() == first


def test_what_travels_is_the_place(data: Path) -> None:
    tars(data)
    found = tar_index(data)
    sent = pickle.dumps(found.labels)
    assert len(sent) < 1500 and isinstance(pickle.loads(sent), Mapped)
    part = pickle.loads(pickle.dumps(found.labels[2:5]))
    assert type(part) is np.ndarray and part.tolist() == found.labels[2:5].tolist()


def test_a_node_without_the_index_makes_it_from_its_data(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tars(data)
    found = tar_index(data)
    sent, labels = pickle.dumps(found), found.labels.tolist()
    monkeypatch.setenv("HARDRAY_CACHE", str(tmp_path / "other node"))
    shutil.rmtree(tmp_path / "cache")
    assert pickle.loads(sent).labels.tolist() == labels
    shutil.rmtree(tmp_path / "other node")
    write_tar(data / "train-2.tar", samples(20, 7))
    with pytest.raises(DataError, match="differ from those of the node that started the run"):
        pickle.loads(sent)


def test_a_cache_that_cannot_be_written_costs_time_and_is_said(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tars(data)
    put(tmp_path, {"file": b""})
    monkeypatch.setenv("HARDRAY_CACHE", str(tmp_path / "file"))
    found = tar_index(data)
    assert len(found.labels) == 40
    assert all("not kept for the next start" in line for line in found.account.said) and found.account.said


def test_old_indexes_are_removed(data: Path, tmp_path: Path) -> None:
    tars(data)
    old = kept_indexes() / "old"
    old.mkdir(parents=True)
    os.utime(old, (0, 0))
    tar_index(data)
    assert not old.exists() and len(list(kept_indexes().iterdir())) == 1


def test_a_part_is_removed_by_its_own_last_use(data: Path) -> None:
    tars(data)
    tar_index(data)
    unused, *used = kept_parts().glob("*/*.npz")
    for folder in kept_parts().iterdir():
        os.utime(folder, (0, 0))  # nothing was added to it for long
    os.utime(unused, (0, 0))
    tar_index(data, "data.val_fraction=0.2", "data.train_split=false")
    os.utime(unused, (0, 0))
    kept_index._remove_unused()
    assert not unused.exists() and len(used) == 3 and all(path.exists() for path in used)


def test_small_indexes_are_not_kept(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_index, "LEAST_IMAGES", 41)
    tars(data)
    assert not isinstance(tar_index(data).labels, Mapped) and not kept_indexes().exists()


def test_the_view_does_not_decide_the_index(data: Path) -> None:
    tars(data)
    for size in (32, 64):
        tar_index(data, f"data.img_size={size}")
    assert len(list(kept_indexes().iterdir())) == 1
    tar_index(data, "data.val_fraction=0.2")
    assert len(list(kept_indexes().iterdir())) == 2


def test_names_are_kept_as_they_are() -> None:
    names = ["a", "", "grün/ü.png", "x" * 300]
    kept = Names.of(names)
    assert list(kept) == names and [kept[row] for row in range(4)] == names and len(kept) == 4


def test_the_account_survives(data: Path) -> None:
    put(tars(data), {"notes.txt": b"x"})
    first, second = tar_index(data), tar_index(data)
    assert json.dumps(first.account.to_json()) == json.dumps(second.account.to_json())
    assert second.account.files.left_out and second.account.files.adds_up
