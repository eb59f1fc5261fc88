"""`hardray index`: made by tasks of a cluster or by this process, the index is the same, and says what was found."""

from __future__ import annotations

from pathlib import Path

import pytest

from hard_ray import api
from hard_ray.config.data import ParquetData, WebDatasetData
from hard_ray.config.loader import load_config
from hard_ray.data import kept_index
from hard_ray.data.sources.build import build_index
from hard_ray.errors import DataError
from hard_ray.orchestration.index import OnRay
from tests.support.data_folders import put, samples, write_rows, write_tar


@pytest.fixture(autouse=True)
def _own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARDRAY_CACHE", str(tmp_path / "cache"))


def tars(root: Path) -> Path:
    for number in range(5):
        write_tar(root / f"train-{number}.tar", samples(10 * number, 10))
    return root


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_tasks_of_a_cluster_make_the_same_index(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = tmp_path / "data"
    if kind == "webdataset":
        config = WebDatasetData(path=tars(root))
    else:
        for number in range(5):
            write_rows(root / f"train-{number}.parquet", 10 * number, 10)
        config = ParquetData(path=root)
    spread = build_index(config, OnRay(print))
    monkeypatch.setenv("HARDRAY_CACHE", str(tmp_path / "other"))
    here = build_index(config)
    assert spread.fingerprint() == here.fingerprint()
    assert spread.account == here.account
    assert spread.reader.read(range(50)) == here.reader.read(range(50))


@pytest.mark.usefixtures("cluster")
def test_a_shard_that_cannot_be_read_is_named(tmp_path: Path):
    put(tars(tmp_path / "data"), {"train-3.tar": b"no archive"})
    with pytest.raises(DataError, match=r"train-3\.tar: cannot be read as an uncompressed tar file"):
        build_index(WebDatasetData(path=tmp_path / "data"), OnRay(print))


def test_what_was_found_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kept_index, "LEAST_IMAGES", 10)
    root = put(tars(tmp_path / "data"), {"notes.txt": b"x"})
    config = load_config(overrides=["data.kind=webdataset", f"data.path={root}"])
    lines = api.index(config)
    said = dict(lines)
    assert said["files"] == "5 .tar, 1 .txt; 5 used"
    assert said["split"].startswith("val: 5 images, split off from the training split")
    assert said["classes"].startswith("2; in train from ") or said["classes"].startswith("2; ")
    assert said["shards"].startswith("5, ")
    assert said["left out"] == f"1: no .tar file, first {root / 'notes.txt'}"
    assert str(tmp_path / "cache" / "index") in said["index"] and said["index"].endswith("for 50 images")
    monkeypatch.setattr("hard_ray.data.sources.build._made", None)
    assert dict(api.index(config))["files"] == said["files"]


def test_small_data_are_not_kept(tmp_path: Path):
    config = load_config(overrides=["data.kind=webdataset", f"data.path={tars(tmp_path / 'data')}"])
    assert dict(api.index(config))["index"].startswith("not kept: it has fewer than 10,000 images")
