"""Data in a bucket: the same index, account and pictures as of the same files in a folder."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from hard_ray.config.data import DataConfig
from hard_ray.config.loader import absolute, load_config
from hard_ray.config.runtime import RuntimeConfig
from hard_ray.data import kept_index
from hard_ray.data.index import ImageIndex
from hard_ray.data.sources.build import build_index, cache_of
from hard_ray.errors import ConfigError, DataError, StorageError
from hard_ray.storage import objects
from hard_ray.storage.address import Remote
from tests.support.buckets import Server, faulty_server, server_with, set_keys
from tests.support.data_folders import fill, fill_splits, put, samples, write_rows, write_tar


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server_with(tmp_path_factory.mktemp("moto") / "log", "data") as started:
        yield started


@pytest.fixture(autouse=True)
def _own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_keys(monkeypatch)
    monkeypatch.setattr(objects, "RETRIES", objects.Retries(first_s=0.01, longest_s=0.05))
    monkeypatch.setenv("HARDRAY_CACHE", str(tmp_path / "cache"))


def folder(root: Path, kind: str) -> Path:
    if kind == "image_folder":
        return put(fill_splits(root, "train", "val"), {"notes.txt": b"x", "train/.DS_Store": b"x", "train/odd/y": b"z"})
    if kind == "images":
        return put(fill(root, "a", "b/c"), {"a/unknown": (fill(root, "q") / "q/0.png").read_bytes(), "a/.h/x.png": b""})
    for number in range(3):
        if kind == "webdataset":
            write_tar(root / f"shards/train-{number}.tar", samples(10 * number, 10))
        else:
            write_rows(root / f"shards/train-{number}.parquet", 10 * number, 10)
    return put(root, {"readme.md": b"x"})


def upload(root: Path, remote: Remote) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            objects.write(remote / path.relative_to(root).as_posix(), path.read_bytes())


def index(kind: str, path: Path | Remote, cache_gb: float = 1.0, **keys: object) -> ImageIndex:
    config = TypeAdapter[DataConfig](DataConfig).validate_python({"kind": kind, "path": str(path), **keys})
    return build_index(config, cache=cache_of(RuntimeConfig(cache_gb=cache_gb)))


KINDS = ("image_folder", "images", "webdataset", "parquet")


@pytest.mark.parametrize("kept", [1, 10**6])
@pytest.mark.parametrize("cache_gb", [1.0, 0.0])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_read_as_a_folder_is(
    kind: str, cache_gb: float, kept: int, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_index, "LEAST_IMAGES", kept)
    root = folder(tmp_path / "data", kind)
    remote = server.remote("data", f"{kind}-{cache_gb}-{kept}")
    upload(root, remote)
    here = index(kind, root)
    for _ in range(2):
        there = index(kind, remote, cache_gb)
        assert there.fingerprint() == here.fingerprint()
        rows = list(range(len(here.labels)))
        assert there.reader.read(rows) == here.reader.read(rows)
        assert [there.reader.name(row) for row in rows] == [
            here.reader.name(row).replace(str(root), remote.shown) for row in rows
        ]
        assert there.account.files.found == here.account.files.found
        assert there.account.items == here.account.items
        assert {reason: entry.count for reason, entry in there.account.files.left_out.items()} == {
            reason: entry.count for reason, entry in here.account.files.left_out.items()
        }
        again = pickle.loads(pickle.dumps(there))
        assert again.reader.read(rows[3:5]) == here.reader.read(rows[3:5])
        assert np.array_equal(again.labels, here.labels)


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_a_changed_shard_is_noticed(kind: str, server: Server, tmp_path: Path) -> None:
    root, remote = folder(tmp_path / "data", kind), server.remote("data", f"changed-{kind}")
    upload(root, remote)
    before = len(index(kind, remote).labels)
    if kind == "webdataset":
        write_tar(root / "shards/train-1.tar", samples(10, 7))
    else:
        write_rows(root / "shards/train-1.parquet", 10, 7)
    upload(root / "shards", remote / "shards")
    after = index(kind, remote)
    assert (before, len(after.labels)) == (30, 27)
    assert len(after.reader.read(range(27))) == 27


@pytest.mark.parametrize("fault", ["slow", "reset", "truncated"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_fails_for_a_while_costs_time_alone(
    kind: str, fault: str, server: Server, tmp_path: Path
) -> None:
    root = folder(tmp_path / "data", kind)
    remote = server.remote("data", f"faulty-{kind}-{fault}")
    upload(root, remote)
    here, rows = index(kind, root), range(10)
    with faulty_server(server) as (front, faults):
        through = front.remote("data", remote.key)
        faults.add("GET", fault, times=2)
        there = index(kind, through)
        faults.add("GET", fault, times=2)
        assert there.reader.read(rows) == here.reader.read(rows)
        assert there.fingerprint() == here.fingerprint()
        assert faults.rules[0][2] == 0


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_denied_shards_end_the_run_with_a_sentence(kind: str, server: Server, tmp_path: Path) -> None:
    root, remote = folder(tmp_path / "data", kind), server.remote("data", f"denied-{kind}")
    upload(root, remote)
    with faulty_server(server) as (front, faults):
        through = front.remote("data", remote.key)
        there = index(kind, through)
        faults.add("shards", "denied")
        fresh = index(kind, through, cache_gb=0.0)
        with pytest.raises(StorageError, match="denied|may not|credentials"):
            fresh.reader.read(range(10))
        assert len(there.labels) == 30


def test_a_lost_image_is_an_unreadable_one(server: Server, tmp_path: Path) -> None:
    root, remote = folder(tmp_path / "data", "image_folder"), server.remote("data", "lost")
    upload(root, remote)
    there = index("image_folder", remote)
    objects.delete(remote / Path(there.reader.name(0)).relative_to(Path(remote.shown)).as_posix())
    lost, found = there.reader.read([0, 1])
    assert isinstance(lost, OSError) and "does not exist" in str(lost) and isinstance(found, bytes)


def test_what_is_missing_or_no_folder_is_said(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist or is empty"):
        index("image_folder", server.remote("data", "nowhere"))
    with pytest.raises(StorageError, match="bucket"):
        index("image_folder", server.remote("no-such-bucket", "x"))
    remote = server.remote("data", "one/object.txt")
    objects.write(remote, b"x")
    with pytest.raises(DataError, match="want a folder, this is an object"):
        index("parquet", remote)
    with pytest.raises(DataError, match=r"holds no \.parquet file \(it holds 1 \.txt\)"):
        index("parquet", remote.parent)


def test_options_come_from_the_url_or_the_configuration(server: Server, tmp_path: Path) -> None:
    root, remote = folder(tmp_path / "data", "images"), server.remote("data", "options")
    upload(root, remote)
    there = index("images", Path(remote.shown), storage_options=remote.options)
    assert len(there.labels) == len(index("images", root).labels)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("data.kind=image_folder data.path=s3://key:secret@bucket/x", "credentials come from the environment"),
        ("data.kind=image_folder data.path=s3://bucket/x?secret_key=hidden", "credential secret_key"),
        (
            "data.kind=image_folder data.path=s3://b/x data.storage_options.session_token=hidden",
            "credential session_token",
        ),
        ("data.kind=image_folder data.path=s3://b/x data.storage_options.regoin=eu", "did you mean region"),
        ("data.kind=image_folder data.path=/x data.storage_options.region=eu", "storage_options are those of a bucket"),
        ("data.kind=image_folder data.path=ftp://b/x", "no address that can be read"),
        ("data.kind=idx data.path=s3://b/x", "is read from a local folder"),
    ],
)
def test_mistakes_are_said_before_anything_is_opened(overrides: str, message: str) -> None:
    with pytest.raises((ConfigError, ValidationError)) as caught:
        load_config(overrides=overrides.split())
    assert message in str(caught.value)
    assert "hidden" not in str(caught.value) and ":secret@" not in str(caught.value)


def test_a_url_survives_files_and_absolute_paths() -> None:
    config = load_config(overrides=["data.kind=images", "data.path=s3://b/x?region=eu", "teacher.checkpoint=x.pt"])
    assert str(absolute(config).data.path) == "s3://b/x?region=eu"  # type: ignore[union-attr]
    dumped = config.model_dump(mode="json")
    assert dumped["data"]["path"] == "s3://b/x?region=eu"
    assert type(config).model_validate(dumped) == config


def test_file_urls_are_paths(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", "images")
    assert index("images", Path(f"file://{root}")).fingerprint() == index("images", root).fingerprint()
