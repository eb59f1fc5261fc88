"""Objects in a bucket of a real server: what is written is read, what fails for a while is tried again."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hard_ray.errors import MissingObjectError, StorageError
from hard_ray.storage import objects
from hard_ray.storage.address import Remote
from hard_ray.storage.objects import RemoteFile
from hard_ray.storage.problems import is_passing, problem

CONTENT = os.urandom(300_000)


def test_what_is_written_is_listed_read_and_deleted(bucket):
    names = ["a/b c.txt", "a/x%20y?#.bin", "a/empty", "d/e/f"]
    for name in names:
        objects.write(bucket / name, b"" if name.endswith("empty") else name.encode())
    found = objects.listing(bucket)
    assert [one.key for one in found] == sorted(names)
    assert [one.size for one in objects.listing(bucket / "a")] == [9, 0, 13]
    assert [one.key for one in objects.listing(bucket / "a")] == ["b c.txt", "empty", "x%20y?#.bin"]
    assert objects.read(bucket / "a/x%20y?#.bin") == b"a/x%20y?#.bin"
    assert objects.read(bucket / "a/empty") == b""
    assert all(one.mtime is not None for one in found)
    objects.delete(bucket / "a/b c.txt")
    objects.delete(bucket / "a/b c.txt")
    assert [one.key for one in objects.listing(bucket / "a")] == ["empty", "x%20y?#.bin"]
    assert objects.stat(bucket / "a") is None
    assert objects.stat(bucket / "d/e/f").size == 5
    assert [one.key for one in objects.listing(bucket / "d/e/f")] == [""]


def test_local_files_have_the_same_interface(tmp_path):
    root = Remote.parse(f"file://{tmp_path}/my%20folder")
    objects.write(root / "a/b", b"abc")
    assert (tmp_path / "my folder/a/b").read_bytes() == b"abc"
    assert [(one.key, one.size) for one in objects.listing(root)] == [("a/b", 3)]
    assert [(one.key, one.size) for one in objects.listing(root / "a/b")] == [("", 3)]
    assert objects.read_range(root / "a/b", 1, 2) == b"bc"
    objects.delete(root / "a/b")
    with pytest.raises(MissingObjectError, match="does not exist"):
        objects.read(root / "a/b")


def test_a_large_object_goes_in_parts(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(objects, "PART", 70_000)
    path = tmp_path / "large"
    path.write_bytes(CONTENT)
    objects.write_file(bucket / "large", path)
    assert objects.read(bucket / "large") == CONTENT
    objects.write_file(bucket / "large", path, size=100_000)
    assert objects.read(bucket / "large") == CONTENT[:100_000]


def test_ranges_are_exact(bucket):
    objects.write(bucket / "x", CONTENT)
    assert objects.read_range(bucket / "x", 1000, 7) == CONTENT[1000:1007]
    assert objects.read_ranges(bucket / "x", [(0, 1), (299_999, 1), (5, 0)]) == [CONTENT[:1], CONTENT[-1:], b""]
    with pytest.raises(StorageError, match="ends at byte 300,000"):
        objects.read_range(bucket / "x", 299_990, 20)
    with pytest.raises(StorageError, match="7 were expected"):
        objects.read(bucket / "x", size=7)


def test_many_are_read_in_order_and_an_error_stands_in_its_place(bucket):
    for number in range(30):
        objects.write(bucket / f"{number}", str(number).encode())
    wanted = [bucket / f"{number}" for number in range(31)]
    found = list(objects.read_many(wanted, threads=3))
    assert found[:30] == [str(number).encode() for number in range(30)]
    assert isinstance(found[30], MissingObjectError)


def test_parquet_is_read_by_range(bucket):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": range(1000), "b": [os.urandom(200) for _ in range(1000)]}), sink, row_group_size=100)
    objects.write(bucket / "t.parquet", sink.getvalue().to_pybytes())
    with RemoteFile(bucket / "t.parquet") as file:
        parquet = pq.ParquetFile(file)
        assert parquet.read_row_group(3, ["a"]).column("a").to_pylist() == list(range(300, 400))


@pytest.mark.parametrize("fault", ["slow", "internal", "reset", "truncated", "short"])
@pytest.mark.chaos
def test_a_fault_that_passes_costs_no_bit(bucket, faulty, fault):
    front, faults = faulty
    objects.write(bucket / "x", CONTENT)
    faults.add(r"GET /bucket-\d+/x", fault, 3)
    assert objects.read(front / "x") == CONTENT
    assert sum(line.startswith("GET") for line in faults.seen) == 4
    faults.add(r"GET /bucket-\d+/x", fault, 2)
    assert objects.read_range(front / "x", 10, 100_000) == CONTENT[10:100_010]
    with RemoteFile(front / "x") as file:
        faults.add(r"GET /bucket-\d+/x", fault, 2)
        assert file.read() == CONTENT


@pytest.mark.chaos
def test_throttled_listings_and_writes_are_made_again(bucket, faulty):
    front, faults = faulty
    faults.add("PUT", "slow", 3)
    objects.write(front / "a/x", CONTENT)
    faults.add(r"GET .*list-type", "slow", 3)
    assert [one.key for one in objects.listing(front)] == ["a/x"]
    assert objects.read(bucket / "a/x") == CONTENT
    faults.add("DELETE", "slow", 2)
    objects.delete(front / "a/x")
    assert objects.stat(bucket / "a/x") is None


@pytest.mark.chaos
def test_a_server_that_keeps_failing_is_one_sentence(faulty):
    front, faults = faulty
    faults.add("", "slow")
    with pytest.raises(StorageError, match="the server kept failing") as found:
        objects.read(front / "x")
    assert len(faults.seen) >= objects.RETRIES.attempts
    _is_one_sentence(found.value)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("denied", "access is denied"),
        ("expired", "credentials have expired"),
        ("unknown key", "does not know these credentials"),
        ("signature", "secret key does not belong"),
        ("lost", "does not exist"),
    ],
)
@pytest.mark.chaos
def test_a_fault_that_stays_is_one_sentence(bucket, faulty, fault, said):
    front, faults = faulty
    objects.write(bucket / "x", CONTENT)
    faults.add("", fault)
    for call in (
        lambda: objects.read(front / "x"),
        lambda: objects.listing(front / "y" if fault == "lost" else front),
        lambda: objects.write(front / "x", b"no"),
    ):
        with pytest.raises(StorageError, match=said) as found:
            call()
        _is_one_sentence(found.value)
    assert objects.read(bucket / "x") == CONTENT


def test_a_missing_object_and_a_missing_bucket_are_told_apart(bucket, server):
    with pytest.raises(MissingObjectError, match=r"nothing does not exist") as found:
        objects.read(bucket / "nothing")
    _is_one_sentence(found.value)
    for call in (
        lambda: objects.read(server.remote("no-bucket", "x")),
        lambda: objects.listing(server.remote("no-bucket")),
        lambda: objects.write(server.remote("no-bucket", "x"), b""),
    ):
        with pytest.raises(StorageError, match="there is no bucket no-bucket"):
            call()
    with pytest.raises(MissingObjectError, match="does not exist or is empty"):
        objects.listing(bucket / "nothing")


def test_no_network_is_one_sentence():
    with pytest.raises(StorageError, match="cannot be reached") as found:
        objects.read(Remote.parse("s3://bucket/x?endpoint_override=127.0.0.1:9&scheme=http"))
    _is_one_sentence(found.value)


def _is_one_sentence(error: Exception) -> None:
    text = str(error)
    assert "\n" not in text
    assert "planted" not in text
    assert len(text) < 300


def test_names_of_keys_decide_nothing_about_an_error():
    remote = Remote.parse("s3://b/presets/permission-study/timed out")
    denied = OSError(
        f"When reading key '{remote.key}' in bucket 'b': AWS Error ACCESS_DENIED during GetObject operation"
    )
    assert not is_passing(denied)
    assert "access is denied" in str(problem(remote, denied))
    away = OSError(f"When reading key '{remote.key}' in bucket 'b': AWS Error NETWORK_CONNECTION: curlCode: 7, refused")
    assert "cannot be reached" in str(problem(remote, away))
    assert is_passing(OSError("Connection reset by peer"))


def test_a_file_that_grows_while_it_is_sent_is_as_long_as_was_said(tmp_path: Path):
    (tmp_path / "log").write_bytes(b"0123456789")
    there = Remote.parse(f"file://{tmp_path}/bucket/log")
    objects.write_file(there, tmp_path / "log", size=4)
    assert objects.read(there) == b"0123"
