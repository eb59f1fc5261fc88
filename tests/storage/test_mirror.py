"""A folder at a URL: whole states only, whatever is interrupted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from hard_ray.errors import MissingObjectError, RunFolderError, StorageError
from hard_ray.storage import lock as lock_module
from hard_ray.storage import mirror as module
from hard_ray.storage import objects
from hard_ray.storage.address import Remote
from hard_ray.storage.lock import LOCK, UrlLock
from hard_ray.storage.mirror import MANIFEST, Mirror, shown_path, url_of, working_copy


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "SETTLE_S", 0.05)
    monkeypatch.setattr(lock_module, "BEAT_S", 0.1)
    monkeypatch.setattr(lock_module, "STALE_S", 1.0)


@pytest.fixture
def one(bucket, tmp_path) -> Mirror:
    return Mirror(bucket / "runs/birds", tmp_path / "one")


@pytest.fixture
def two(bucket, tmp_path) -> Mirror:
    return Mirror(bucket / "runs/birds", tmp_path / "two")


def put(mirror: Mirror, name: str, content: bytes | str) -> None:
    path = mirror.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    temporary.replace(path)


def content(mirror: Mirror) -> dict[str, bytes]:
    return {name: (mirror.folder / name).read_bytes() for name in module._scan(mirror.folder)}


def test_a_pushed_folder_is_pulled_and_hidden_files_are_not(one, two):
    large = os.urandom(3000)
    put(one, "config.yaml", "a")
    put(one, "checkpoints/step-1/student", large)
    for hidden in (".lock", ".x.tmp", "stop", "ray/state", ".old/x"):
        put(one, hidden, "no")
    assert one.push()
    assert not one.push()
    assert two.pull()
    assert content(two) == {"config.yaml": b"a", "checkpoints/step-1/student": large}
    assert url_of(two.folder) == str(two.remote)
    assert shown_path(two.folder / "student") == str(two.remote / "student")
    assert shown_path(Path("runs/x")) == "runs/x"


def test_files_in_parts_arrive_too(one, two, monkeypatch):
    monkeypatch.setattr(module, "SMALL", 1000)
    monkeypatch.setattr(objects, "PART", 700)
    put(one, "a", os.urandom(2500))
    one.push()
    two.pull()
    assert content(one) == content(two)


def test_only_what_changed_is_sent_and_brought(one, two, faulty, bucket):
    front, faults = faulty
    put(one, "a", "1")
    put(one, "b", "1")
    one.push()
    two.pull()
    one.remote = two.remote = front / "runs/birds"
    put(one, "b", "2")
    one.push()
    assert [line for line in faults.seen if line.startswith("PUT") and "/b" in line.split("files")[-1]]
    assert not [line for line in faults.seen if line.endswith("/a")]
    faults.seen.clear()
    two.pull()
    assert not [line for line in faults.seen if line.endswith("/a")]
    assert content(two) == {"a": b"1", "b": b"2"}


@pytest.mark.chaos
def test_an_interrupted_push_is_never_visible(one, two, faulty, bucket):
    """At every request a push is cut off: a reader sees the state before or the one after."""
    front, faults = faulty
    reached = 0
    for cut in range(1, 40):
        before = {"a": b"%d" % (cut - 1), "b": b"%d" % (cut - 1)} if cut > 1 else {}
        put(one, "a", str(cut))
        put(one, "b", str(cut))
        one.remote = front / "runs/birds"
        faults.seen.clear()
        faults.rules.clear()
        faults.rules.append((_After(faults, cut), "denied", 10**9))
        failed = False
        try:
            one.push()
        except StorageError:
            failed = True
        faults.rules.clear()
        two.pull()
        found = content(two)
        assert found in ({"a": b"%d" % cut, "b": b"%d" % cut}, before), (cut, found, before)
        if not failed:
            reached = cut
            break
        one.push()
        two.pull()
        assert content(two) == {"a": b"%d" % cut, "b": b"%d" % cut}
    assert reached > 4


class _After:
    """Matches every request from a number on."""

    def __init__(self, faults, number: int) -> None:
        self.faults, self.number = faults, number

    def search(self, _: str) -> bool:
        return len(self.faults.seen) >= self.number


def test_deleted_checkpoints_leave_the_manifest_and_then_the_bucket(one, two, bucket):
    for step in range(1, 6):
        put(one, f"checkpoints/step-{step}/student", f"weights {step}")
        put(one, f"checkpoints/step-{step}/state.json", f"state {step}")
        if step > 2:
            shutil.rmtree(one.folder / f"checkpoints/step-{step - 2}")
        one.push()
        two.pull()
        wanted = {f"checkpoints/step-{at}" for at in (step - 1, step) if at > 0}
        assert {name.rpartition("/")[0] for name in content(two)} == wanted
    stored = [found.key for found in objects.listing(bucket / "runs/birds/files")]
    assert len(stored) == 6  # of two states with two checkpoints each, one of which is in both


def test_what_a_cleaner_of_caches_deleted_is_not_deleted_at_the_url(one, two):
    put(one, "config.yaml", "a")
    put(one, "checkpoints/step-1/student", "w")
    one.push()
    shutil.rmtree(one.folder / "checkpoints")
    (one.folder / "config.yaml").unlink()
    assert not one.push()
    one.pull()
    assert content(one) == {"config.yaml": b"a", "checkpoints/step-1/student": b"w"}
    two.pull()
    assert content(two) == content(one)


def test_two_copies_add_to_one_url(one, two):
    put(one, "config.yaml", "a")
    one.push()
    two.pull(lambda name: "checkpoints" not in name)
    put(one, "checkpoints/step-1/student", "w")
    put(one, "metrics.jsonl", "1")
    one.push()
    put(two, "summary.json", "s")
    two.push()
    one.pull()
    assert content(one).keys() == {"config.yaml", "checkpoints/step-1/student", "metrics.jsonl", "summary.json"}
    two.pull(lambda name: "checkpoints" not in name)
    assert content(two).keys() == {"config.yaml", "metrics.jsonl", "summary.json"}
    put(two, "summary.json", "t")
    two.push()
    one.pull()
    assert content(one)["summary.json"] == b"t"
    assert "checkpoints/step-1/student" in content(one)


def test_what_changed_only_here_stays_at_a_pull(one):
    put(one, "metrics.jsonl", "1")
    one.push()
    put(one, "metrics.jsonl", "12")
    one.pull()
    assert content(one) == {"metrics.jsonl": b"12"}


def test_match_removes_what_the_url_does_not_have(one, two):
    put(one, "checkpoints/step-1/student", "w")
    one.push()
    put(two, "checkpoints/step-9/student", "stale")
    put(two, "tracking.json", "mine")
    two.match(lambda name: "checkpoints/" in name)
    assert content(two) == {"checkpoints/step-1/student": b"w", "tracking.json": b"mine"}


@pytest.mark.chaos
def test_the_background_never_waits_and_sends_later_what_failed(one, two, faulty, bucket, caplog):
    front, faults = faulty
    one.remote = front / "runs/birds"
    faults.add("PUT", "denied", 3)
    before = threading.active_count()  # those of libraries that other tests have used
    for number in range(3):
        put(one, "a", str(number))
        one.push_later()
        _wait(lambda number=number: sum(line.startswith("PUT") for line in faults.seen) > number)
        _wait(one._wanted.is_set, wanted=False)
    one.finish()
    two.pull()
    assert content(two) == {"a": b"2"}
    assert caplog.text.count("access is denied") == 1
    assert threading.active_count() < before + 20
    assert one._thread is None


@pytest.mark.chaos
def test_the_newest_state_wins_while_an_upload_is_under_way(one, two, monkeypatch):
    gate, calls = threading.Event(), []
    push = Mirror.push

    def slow(self):
        calls.append(1)
        gate.wait(20)
        return push(self)

    monkeypatch.setattr(Mirror, "push", slow)
    for number in range(50):
        put(one, "a", str(number))
        one.push_later()
    gate.set()
    one.finish()
    assert len(calls) <= 3  # the one under way, perhaps one for all that came meanwhile, and the last
    two.pull()
    assert content(two) == {"a": b"49"}


@pytest.mark.chaos
def test_a_folder_that_is_replaced_while_it_is_sent_arrives_as_one(one, two, monkeypatch):
    put(one, "best/config.json", "1")
    put(one, "best/model", "1")
    write, replaced = objects.write, []

    def replace_once(remote, text):
        if not replaced and "config.json" in str(remote):
            replaced.append(1)
            (one.folder / "best").rename(one.folder / ".best.old")
            put(one, "best/config.json", "2")
            put(one, "best/model", "2")
        write(remote, text)

    monkeypatch.setattr(module.objects, "write", replace_once)
    one.push()
    two.pull()
    assert content(two) == {"best/config.json": b"2", "best/model": b"2"}


@pytest.mark.chaos
def test_what_another_node_sent_is_named_and_need_not_be_here(one, two, tmp_path):
    put(one, "config.yaml", "a")
    one.push()
    made = tmp_path / "shard-00003.parquet"
    made.write_bytes(os.urandom(1000))
    entry = module.send_alone(one.remote, made)
    one.adopt({"features/shard-00003.parquet": entry})
    put(one, "config.yaml", "b")
    one.push()
    assert "features/shard-00003.parquet" not in content(one)
    two.pull()
    assert content(two) == {"config.yaml": b"b", "features/shard-00003.parquet": made.read_bytes()}
    one.pull()
    assert content(one) == content(two)
    one.check = _lost
    with pytest.raises(RunFolderError, match="another"):
        one.adopt({"x": entry})
    assert "x" not in one.files()


def _lost() -> None:
    raise RunFolderError("another process has it")


def test_what_is_removed_goes_here_at_the_url_and_in_other_copies(one, two):
    for name in ("pilots/probe/log", "pilots/probe/kd/student/weights", "pilots/probe-2/log"):
        put(one, name, name)
    one.push()
    two.pull()
    put(one, "pilots/probe/unsent", "x")
    one.remove(lambda name: name.startswith("pilots/probe/"))
    assert list(content(one)) == ["pilots/probe-2/log"]
    two.pull()
    assert list(content(two)) == ["pilots/probe-2/log"]
    assert not one.push()
    assert list(two.files()) == ["pilots/probe-2/log"]


def test_a_damaged_object_is_not_taken(one, two):
    put(one, "a", "12345")
    one.push()
    entry = one._manifest()[0]["a"]
    objects.write(one.remote / entry.key("a"), b"54321")
    with pytest.raises(StorageError, match="damaged"):
        two.pull()
    assert content(two) == {}


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", ".lock", "ray/x"])
def test_a_manifest_that_names_files_outside_is_refused(one, two, name):
    text = {"format": 1, "serial": 1, "files": {name: {"size": 1, "sha256": "0" * 64}}}
    objects.write(one.remote / "manifest.json", json.dumps(text).encode())
    with pytest.raises(StorageError, match="outside its folder"):
        two.pull()
    objects.write(one.remote / "manifest.json", b"[]")
    with pytest.raises(StorageError, match="no manifest of hardray"):
        two.pull()


def test_the_run_of_an_address_is_found(one, bucket, monkeypatch, tmp_path):
    monkeypatch.setenv("HARDRAY_CACHE", str(tmp_path / "cache"))
    put(one, "student/config.json", "{}")
    one.push()
    for inside in ("", "student", "controls/kd"):
        mirror, found = Mirror.find(bucket / f"runs/birds/{inside}")
        assert (mirror.remote, found) == (bucket / "runs/birds", inside)
        assert mirror.folder.name == "birds"
    with pytest.raises(MissingObjectError, match="holds no run"):
        Mirror.find(bucket / "runs/cats")


def test_what_was_not_sent_of_an_earlier_run_is_no_part_of_the_next_one(one, two, bucket, caplog):
    put(one, "config.yaml", "1")
    one.push()
    put(one, "checkpoints/step-500/state.json", "unsent")
    for each in objects.listing(bucket):
        objects.delete(bucket / each.key)
    put(two, "config.yaml", "2")
    two.push()
    assert one.pull()
    one.push()
    assert content(one) == content(two) == {"config.yaml": b"2"}
    assert set(two.files()) == {"config.yaml"}
    assert "the URL was emptied and used again" in caplog.text
    put(one, "more", "1")
    one.push()
    two.pull()
    assert content(two).keys() == {"config.yaml", "more"}


def test_a_state_of_a_version_without_ids_goes_on(one, two):
    put(one, "a", "1")
    one.push()
    for path in (one.folder / module.STATE,):
        path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "id"}))
    old = json.loads(objects.read(one.remote / MANIFEST))
    objects.write(one.remote / MANIFEST, json.dumps({key: old[key] for key in ("format", "serial", "files")}).encode())
    put(one, "b", "unsent")
    one.push()
    two.pull()
    assert content(one) == content(two) == {"a": b"1", "b": b"unsent"}


def test_a_manifest_of_something_else_above_an_address_is_passed_over(bucket, one):
    objects.write(bucket / "runs/manifest.json", b'{"name": "app"}')
    objects.write(bucket / "manifest.json", b"no json")
    put(one, "student/model", "1")
    one.push()
    found, inside = Mirror.find(one.remote / "student")
    assert (found.remote, inside) == (one.remote, "student")
    with pytest.raises(MissingObjectError, match="holds no run"):
        Mirror.find(bucket / "runs/deep/file")


def test_a_whole_bucket_may_hold_a_run(bucket, tmp_path):
    whole = Mirror(bucket, tmp_path / "whole")
    put(whole, "student/model", "1")
    whole.push()
    found, inside = Mirror.find(bucket / "student")
    assert (found.remote, inside) == (bucket, "student")
    assert Mirror.find(bucket)[1] == ""


@pytest.mark.parametrize("name", ["mlflow.db", "mlflow.db-wal", "mlartifacts"])
def test_a_run_has_no_name_of_mlflows_files(name: str):
    with pytest.raises(StorageError, match=f"the name {name} is one of MLflow's files"):
        working_copy(Remote.parse(f"s3://b/runs/{name}"))


def test_a_second_process_is_kept_out(bucket):
    first, second = UrlLock(bucket / "run"), UrlLock(bucket / "run")
    with first.held():
        first.check()
        with pytest.raises(RunFolderError, match="in use by another"), second.held():
            pass
        with pytest.raises(RunFolderError, match="in use by another"):
            second.check()
    assert objects.stat(first.remote / LOCK) is None
    with second.held():
        second.check()


def test_a_lock_of_a_dead_process_is_taken_over(bucket):
    objects.write(bucket / "run/lock.json", b'{"owner": "gone", "host": "pod-0", "pid": 7, "beat": 3}')
    said = []
    lock = UrlLock(bucket / "run")
    with lock.held(said.append):
        lock.check()
    assert "pod-0" in said[0]
    assert objects.stat(lock.remote / LOCK) is None


@pytest.mark.parametrize(("processes", "waits"), [({}, False), ({"processes": "pid:[1]"}, True)])
def test_a_process_of_another_container_with_this_name_counts_as_alive(bucket, processes: dict, waits: bool):
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = {"owner": "gone", **lock_module._this_process(), "pid": ended.pid, "beat": 3, **processes}
    objects.write(bucket / "run/lock.json", json.dumps(left).encode())
    said: list[str] = []
    with UrlLock(bucket / "run").held(said.append):
        assert bool(said) == waits


def test_a_push_fails_once_another_process_owns_the_url(one, bucket):
    put(one, "a", "1")
    lock = UrlLock(one.remote)
    one.check = lock.check
    with lock.held():
        one.push()
        objects.write(one.remote / "lock.json", b'{"owner": "other", "host": "pod-1"}')
        put(one, "a", "2")
        with pytest.raises(RunFolderError, match="pod-1"):
            one.push()
    assert objects.stat(one.remote / LOCK) is not None  # the other's lock stays


def _wait(condition, *, wanted: bool = True) -> None:
    for _ in range(2000):
        if bool(condition()) is wanted:
            return
        threading.Event().wait(0.01)
    raise AssertionError("waited in vain")
