"""Generated sets that somebody else made, or damaged: each is refused with its path and what to do."""

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hard_ray.data.generated_set import MANIFEST, SCHEMA, open_generated
from hard_ray.data.index import ImageIndex
from hard_ray.data.sources.build import build_index
from hard_ray.errors import DataError, StorageError
from hard_ray.storage.address import Remote
from hard_ray.storage.cache import ObjectCache
from hard_ray.storage.mirror import Mirror
from tests.support.helpers import tiny_config

SHARD = "shard-00000.parquet"


@pytest.fixture(scope="module")
def index() -> ImageIndex:
    return build_index(tiny_config().data)


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (8, 8), value).save(stream, "PNG")
    return stream.getvalue()


def write_set(folder: Path, index: ImageIndex, ids: list[Any], **manifest: Any) -> Path:
    """A finished set of one shard; `manifest` changes what it says, and a None takes it out."""
    told = {"complete": True, "data_fingerprint": index.fingerprint(), "shards": [{"file": SHARD}], **manifest}
    (folder / MANIFEST).write_text(json.dumps({key: value for key, value in told.items() if value is not None}))
    table = pa.table(
        {
            "sample_id": ids,
            "image": [{"bytes": png(number), "path": None} for number in range(len(ids))],
            "label": pa.array([0] * len(ids), pa.int32()),
            "logits": pa.array([[0.0]] * len(ids), pa.list_(pa.float32())),
        }
    )
    pq.write_table(table, folder / SHARD)
    return folder


def test_images_are_found_by_sample_id(tmp_path: Path, index: ImageIndex):
    made = open_generated(write_set(tmp_path, index, ["5", "0", "1796"]), index)
    assert pq.read_schema(tmp_path / SHARD).field("sample_id") == SCHEMA.field("sample_id")
    assert made.read(np.array([1796, 5])) == [png(2), png(0)]


@pytest.mark.parametrize("is_mirror", [True, False])
def test_a_set_at_a_url_gives_the_same_images_from_the_cache(tmp_path: Path, index: ImageIndex, is_mirror: bool):
    remote = Remote.parse(f"file://{tmp_path}/bucket/set")
    (tmp_path / ("copy" if is_mirror else "bucket/set")).mkdir(parents=True)
    cache = ObjectCache(tmp_path / "cache", 10**9)
    if is_mirror:
        write_set(tmp_path / "copy", index, ["5", "0", "1796"])
        Mirror(remote, tmp_path / "copy").push()
    else:
        write_set(tmp_path / "bucket/set", index, ["5", "0", "1796"])
    made = pickle.loads(pickle.dumps(open_generated(remote, index, cache)))
    assert made.read(np.array([1796, 5])) == [png(2), png(0)]
    assert made.folder == remote
    assert list((tmp_path / "cache").rglob("*.json"))


def test_a_url_without_a_set_or_with_a_part_of_one_says_so(tmp_path: Path, index: ImageIndex):
    remote = Remote.parse(f"file://{tmp_path}/bucket/set")
    with pytest.raises((DataError, StorageError), match="bucket/set"):
        open_generated(remote, index)
    (tmp_path / "bucket/set").mkdir(parents=True)
    write_set(tmp_path / "bucket/set", index, ["5"], shards=[{"file": "shard-00007.parquet"}])
    with pytest.raises(DataError, match=r"shard-00007.parquet is missing; the same `hardray generate`"):
        open_generated(remote, index)


@pytest.mark.parametrize(
    "manifest",
    [
        {"data_fingerprint": None},
        {"data_fingerprint": 7},
        {"shards": None},
        {"shards": []},
        {"shards": 3},
        {"shards": [SHARD]},
        {"shards": [{"rows": 3}]},
        {"shards": [{"file": None}]},
        {"shards": [{"file": "../shard-00000.parquet"}]},
        {"shards": [{"file": "/shard-00000.parquet"}]},
        {"shards": [{"file": ".."}]},
    ],
)
def test_a_manifest_that_lacks_something_says_what_to_do(tmp_path: Path, index: ImageIndex, manifest: dict):
    with pytest.raises(DataError, match=rf"{MANIFEST}: want the `data_fingerprint`.*delete this file"):
        open_generated(write_set(tmp_path, index, ["5"], **manifest), index)


def test_a_manifest_that_is_no_mapping_is_none(tmp_path: Path, index: ImageIndex):
    (tmp_path / MANIFEST).write_text("[1]")
    with pytest.raises(DataError, match=f"holds no {MANIFEST}"):
        open_generated(tmp_path, index)


@pytest.mark.parametrize("ids", [["5", "x"], ["5", "1.5"], ["9" * 30], [[5]]], ids=str)
def test_sample_ids_that_are_no_numbers_are_refused(tmp_path: Path, index: ImageIndex, ids: list):
    with pytest.raises(DataError, match=rf"{SHARD}: the shard cannot be read \(Arrow.*generate it again"):
        open_generated(write_set(tmp_path, index, ids), index)


@pytest.mark.parametrize("ids", [["5", "1797"], ["-2"], ["5", None]], ids=str)
def test_sample_ids_that_the_data_does_not_have_are_refused(tmp_path: Path, index: ImageIndex, ids: list):
    with pytest.raises(
        DataError, match=rf"{SHARD}: .* is not one of the data's, which are 0 to 1796\).*generate it again"
    ):
        open_generated(write_set(tmp_path, index, ids), index)


@pytest.mark.parametrize("column", ["sample_id", "image"])
def test_a_shard_without_a_column_is_refused(tmp_path: Path, index: ImageIndex, column: str):
    path = write_set(tmp_path, index, ["5"]) / SHARD
    pq.write_table(pq.read_table(path).drop_columns([column]), path)
    with pytest.raises(DataError, match=rf"{SHARD}: the shard cannot be read.*{column}.*generate it again"):
        open_generated(tmp_path, index)


def test_a_shard_whose_pages_are_damaged_is_refused(tmp_path: Path, index: ImageIndex):
    path = write_set(tmp_path, index, [str(number) for number in range(1000)]) / SHARD
    data = bytearray(path.read_bytes())
    data[4:200] = b"\xff" * 196
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"{SHARD}: the shard cannot be read.*generate it again"):
        open_generated(tmp_path, index)
