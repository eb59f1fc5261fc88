"""The cache of objects: fetched once, checked, evicted by last use, and never half there."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from pathlib import Path

import pytest

from hard_ray.errors import StorageError
from hard_ray.storage import cache as module
from hard_ray.storage import objects
from hard_ray.storage.cache import ObjectCache

CONTENT = os.urandom(200_000)


@pytest.fixture(autouse=True)
def _forget():
    module._verified.clear()
    module._said.clear()


@pytest.fixture
def cache(tmp_path: Path) -> ObjectCache:
    return ObjectCache(tmp_path / "cache", 1_000_000)


def _gets(faults) -> int:
    return sum(line.startswith("GET") for line in faults.seen)


def _files(cache: ObjectCache) -> list[Path]:
    return [path for path in cache.folder.rglob("*") if path.is_file() and path.name != ".lock"]


def test_an_object_is_fetched_once(bucket, faulty, cache, monkeypatch):
    monkeypatch.setattr(module, "PART", 30_000)
    front, faults = faulty
    objects.write(bucket / "x", CONTENT)
    path = cache.local_copy(front / "x", len(CONTENT), "1")
    assert path.read_bytes() == CONTENT
    asked = len(faults.seen)
    assert cache.local_copy(front / "x", len(CONTENT), "1") == path
    with cache.open(front / "x", len(CONTENT), "1") as file:
        assert file.read() == CONTENT
    assert len(faults.seen) == asked
    assert cache.local_copy(front / "x", len(CONTENT), "2") != path
    assert len(faults.seen) > asked


@pytest.mark.chaos
def test_a_damaged_copy_is_fetched_again(bucket, cache, caplog):
    objects.write(bucket / "x", CONTENT)
    path = cache.local_copy(bucket / "x", len(CONTENT), "1")
    path.write_bytes(bytes(len(CONTENT)))
    module._verified.clear()  # as a new process
    assert cache.local_copy(bucket / "x", len(CONTENT), "1").read_bytes() == CONTENT
    assert "damaged" in caplog.text
    for damage in (lambda: path.write_bytes(CONTENT[:-1]), lambda: module._record(path).write_text("{"), path.unlink):
        damage()
        module._verified.clear()
        assert cache.local_copy(bucket / "x", len(CONTENT), "1").read_bytes() == CONTENT


def test_the_least_recently_used_goes_first(bucket, cache):
    for number in range(5):
        objects.write(bucket / f"{number}", CONTENT)
    small = ObjectCache(cache.folder, 3 * len(CONTENT) + 5_000)
    paths = [small.local_copy(bucket / f"{number}", len(CONTENT), "1") for number in range(3)]
    for age, number in enumerate((1, 2, 0)):  # 1 is the oldest
        os.utime(module._record(paths[number]), (1000.0 + age, 1000.0 + age))
    open_file = paths[1].open("rb")
    small.local_copy(bucket / "3", len(CONTENT), "1")
    assert [path.exists() for path in paths] == [True, False, True]
    small.local_copy(bucket / "2", len(CONTENT), "1")
    small.local_copy(bucket / "4", len(CONTENT), "1")
    assert [path.exists() for path in paths] == [False, False, True]
    assert sum(path.stat().st_size for path in _files(small)) <= small.limit
    assert open_file.read() == CONTENT
    open_file.close()


def test_an_object_above_the_limit_is_read_without_the_cache(bucket, tmp_path):
    objects.write(bucket / "x", CONTENT)
    for limit in (0, len(CONTENT) - 1):
        cache = ObjectCache(tmp_path / "cache", limit)
        assert cache.local_copy(bucket / "x", len(CONTENT), "1") is None
        with cache.open(bucket / "x", len(CONTENT), "1") as file:
            file.seek(100)
            assert file.read(50) == CONTENT[100:150]
        assert not cache.folder.exists()


@pytest.mark.chaos
def test_a_full_disk_is_said_once_and_nothing_is_left(bucket, cache, monkeypatch, caplog):
    objects.write(bucket / "x", CONTENT)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    for _ in range(2):
        with cache.open(bucket / "x", len(CONTENT), "1") as file:
            assert file.read() == CONTENT
    assert caplog.text.count("No space left on device") == 1
    assert _files(cache) == []
    monkeypatch.undo()


@pytest.mark.chaos
def test_a_folder_that_cannot_be_made_is_said_once(bucket, tmp_path, caplog):
    objects.write(bucket / "x", CONTENT)
    (tmp_path / "file").write_text("")
    cache = ObjectCache(tmp_path / "file" / "cache", 10**9)
    with cache.open(bucket / "x", len(CONTENT), "1") as file:
        assert file.read() == CONTENT
    assert caplog.text.count("cannot be used") == 1


@pytest.mark.chaos
def test_an_object_that_changed_since_it_was_listed_is_refused(bucket, cache):
    objects.write(bucket / "x", CONTENT)
    with pytest.raises(StorageError, match="changed meanwhile"):
        cache.local_copy(bucket / "x", 7, "1")
    assert _files(cache) == []


@pytest.mark.chaos
def test_what_a_killed_process_left_is_removed_and_never_taken(bucket, cache):
    objects.write(bucket / "x", CONTENT)
    entry = cache._entry(bucket / "x", "1")
    entry.parent.mkdir(parents=True)
    (entry.parent / f".{entry.name}.00000000.tmp").write_bytes(bytes(len(CONTENT)))
    entry.write_bytes(bytes(len(CONTENT)))  # killed before the record was written
    assert cache.local_copy(bucket / "x", len(CONTENT), "1").read_bytes() == CONTENT
    assert len(_files(cache)) == 2


def _process(cache, remote, size, queue) -> None:
    path = cache.local_copy(remote, size, "1")
    queue.put(path.read_bytes() == CONTENT_OF_PROCESSES)


CONTENT_OF_PROCESSES = bytes(range(256)) * 1000


@pytest.mark.chaos
def test_four_processes_fetch_one_object_once(bucket, faulty, cache):
    front, faults = faulty
    objects.write(bucket / "x", CONTENT_OF_PROCESSES)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    size = len(CONTENT_OF_PROCESSES)
    processes = [context.Process(target=_process, args=(cache, front / "x", size, queue)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=60) for _ in processes] == [True] * 4
    for process in processes:
        process.join(30)
    assert _gets(faults) == 1


@pytest.mark.chaos
def test_a_fetch_survives_faults(bucket, faulty, cache, monkeypatch):
    monkeypatch.setattr(module, "PART", 20_000)
    front, faults = faulty
    objects.write(bucket / "x", CONTENT)
    for fault in ("slow", "reset", "truncated"):
        faults.add(r"GET /bucket-\d+/x", fault, 2)
    assert cache.local_copy(front / "x", len(CONTENT), "1").read_bytes() == CONTENT


def test_a_cache_that_travels_is_that_of_the_node_where_it_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HARDRAY_CACHE", str(tmp_path / "driver"))
    sent = pickle.dumps(ObjectCache.of_settings(None, 1.0))
    given = pickle.dumps(ObjectCache.of_settings(tmp_path / "local", 1.0))
    monkeypatch.setenv("HARDRAY_CACHE", str(tmp_path / "worker"))
    assert pickle.loads(sent).folder == tmp_path / "worker/objects"
    assert pickle.loads(given).folder == tmp_path / "local"
