"""The files of a folder at a URL: as hardray wrote them, and as somebody copied them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hard_ray.errors import MissingObjectError
from hard_ray.storage import objects
from hard_ray.storage.address import Remote
from hard_ray.storage.fetched import local_model
from hard_ray.storage.folders import files_at
from hard_ray.storage.mirror import Mirror


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote.parse(f"file://{tmp_path}/bucket/set")


def test_what_a_mirror_wrote_is_found_by_name(remote: Remote, tmp_path: Path):
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "manifest.json").write_text('{"complete": true}')
    (copy / "shard-00000.parquet").write_bytes(b"12345")
    Mirror(remote, copy).push()
    found = files_at(remote)
    assert found.keys() == {"manifest.json", "shard-00000.parquet"}
    assert found["shard-00000.parquet"].size == 5
    assert json.loads(objects.read(found["manifest.json"].remote)) == {"complete": True}


def test_plain_copies_are_found_too_with_a_manifest_of_their_own(remote: Remote, tmp_path: Path):
    folder = tmp_path / "bucket/set"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"complete": true, "files": 3}')
    (folder / "shard-00000.parquet").write_bytes(b"12345")
    found = files_at(remote)
    assert found.keys() == {"manifest.json", "shard-00000.parquet"}
    assert objects.read(found["shard-00000.parquet"].remote) == b"12345"
    version = found["shard-00000.parquet"].version
    (folder / "shard-00000.parquet").write_bytes(b"123456")
    assert files_at(remote)["shard-00000.parquet"].version != version


def test_nothing_there_is_said(remote: Remote):
    with pytest.raises(MissingObjectError, match="bucket/set"):
        files_at(remote)


def test_the_name_of_a_model_gets_a_folder_of_this_machine(remote: Remote, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HARDRAY_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "bucket/set"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    source, _, place = local_model(f"local-dir:{remote}").partition(":")
    assert source == "local-dir"
    assert Path(place).is_relative_to(tmp_path / "cache")
    assert (Path(place) / "config.json").read_text() == "{}"
    for name in ("resnet18", "hf-hub:timm/resnet18", "local-dir:/a/b"):
        assert local_model(name) == name
