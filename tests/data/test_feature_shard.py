"""Shards of features: written whole, verified, found by sample id."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hard_ray.data.checked_shard import ShardHeader, digest_of
from hard_ray.data.feature_shard import Features, read_features, write_features
from hard_ray.errors import DataError

SETTINGS = {"tower": "a" * 64, "view": {"img_size": 32}}


def features(ids: list[int], width: int = 3) -> Features:
    values = np.random.default_rng(0).normal(size=(len(ids), width)).astype(np.float32)
    return Features(np.array(ids, dtype=np.int64), values if ids else np.zeros((0, 0), np.float32))


def header(count: int, settings: dict = SETTINGS) -> ShardHeader:
    return ShardHeader(0, 0, max(0, count - 1), count, settings, digest_of(settings))


@pytest.mark.parametrize("ids", [[4, 1, 9], []])
def test_a_shard_gives_back_what_was_written(ids: list[int], tmp_path: Path):
    given = features(ids)
    made = write_features(tmp_path / "shard-00000.parquet", header(len(ids)), given)
    found, back = read_features(tmp_path / "shard-00000.parquet", 0, SETTINGS)
    assert found == made
    assert back.sample_ids.tolist() == ids
    assert back.values.tobytes() == given.values.tobytes()


def test_every_flipped_bit_of_the_content_is_noticed(tmp_path: Path):
    path = tmp_path / "shard-00000.parquet"
    write_features(path, header(3), features([4, 1, 9]))
    content = path.read_bytes()
    value = features([4, 1, 9]).values.tobytes()[:8]
    place = content.index(value)
    for offset in (0, 3, 7):
        damaged = bytearray(content)
        damaged[place + offset] ^= 1
        path.write_bytes(bytes(damaged))
        with pytest.raises(DataError, match="delete this file and give the same command"):
            read_features(path, 0, SETTINGS)


def test_a_shard_of_another_tower_or_place_is_refused(tmp_path: Path):
    path = tmp_path / "shard-00000.parquet"
    write_features(path, header(3), features([4, 1, 9]))
    with pytest.raises(DataError, match=r"other settings \(tower was aaaaaaaaaaaa…, now bbbbbbbbbbbb…\)"):
        read_features(path, 0, {**SETTINGS, "tower": "b" * 64})
    with pytest.raises(DataError, match="holds shard 0"):
        read_features(path, 1, SETTINGS)


def test_features_are_found_by_sample_id_and_missing_ones_are_left_out():
    whole = Features.joined([features([7, 2]), features([]), features([5])])
    assert whole.sample_ids.tolist() == [7, 2, 5]
    found = whole.of(np.array([5, 3, 7, 100, -1]))
    assert found.sample_ids.tolist() == [5, 7]
    assert np.array_equal(found.values, whole.values[[2, 0]])
    assert Features.joined([]).of(np.array([1])).sample_ids.tolist() == []
