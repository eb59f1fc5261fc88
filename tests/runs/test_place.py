"""The place of a job that the same command continues: a folder, or the working copy of a URL."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from hard_ray.errors import RunFolderError, StorageError
from hard_ray.files import is_vacant
from hard_ray.runs import place as module
from hard_ray.runs.place import kept_place
from hard_ray.storage import lock as lock_module
from hard_ray.storage import objects
from hard_ray.storage.address import Remote
from hard_ray.storage.lock import UrlLock
from hard_ray.storage.mirror import Mirror


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lock_module, "SETTLE_S", 0.01)
    monkeypatch.setenv("HARDRAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def url(tmp_path: Path) -> Path:
    return Path(f"file://{tmp_path}/bucket/set")  # as the command line hands it over


def silent(_: str) -> None:
    pass


def at(url: Path) -> dict[str, object]:
    return dict(Mirror.of(Remote.parse(url)).files())


def test_a_local_folder_is_itself(tmp_path: Path):
    with kept_place(tmp_path / "new", silent) as place:
        assert place.folder == tmp_path / "new"
        assert place.url is None
    assert not (tmp_path / "new").exists()


def test_what_a_job_wrote_is_at_the_url_and_there_again_on_another_machine(url: Path, cache: Path):
    with kept_place(url, silent) as place:
        assert is_vacant(place.folder)
        (place.folder / "shard").write_text("1")
    shutil.rmtree(cache)
    with kept_place(url, silent) as place:
        assert not is_vacant(place.folder)
        assert (place.folder / "shard").read_text() == "1"
    assert objects.stat(Remote.parse(url) / "lock.json") is None


def test_a_job_that_fails_sends_what_it_has(url: Path):
    with pytest.raises(ValueError, match="in the middle"), kept_place(url, silent) as place:
        (place.folder / "shard").write_text("1")
        raise ValueError("in the middle")
    assert at(url).keys() == {"shard"}


def test_a_long_job_sends_while_it_goes_on(url: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "SEND_EVERY_S", 0.02)
    with kept_place(url, silent) as place:
        (place.folder / "shard").write_text("1")
        for _ in range(500):
            if at(url):
                break
            time.sleep(0.01)
        assert at(url).keys() == {"shard"}


def test_what_was_removed_at_the_url_is_not_sent_again(url: Path, tmp_path: Path):
    with kept_place(url, silent) as place:
        (place.folder / "shard").write_text("1")
    shutil.rmtree(tmp_path / "bucket")
    with kept_place(url, silent) as place:
        assert is_vacant(place.folder)


def test_what_could_not_be_sent_stays_and_is_sent_by_the_same_command(url: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise StorageError("no route to it")

    with monkeypatch.context() as patch:
        patch.setattr(objects, "write", fail)
        patch.setattr(UrlLock, "_take", lambda *_: None)
        with (
            pytest.raises(StorageError, match="the same command on this machine sends it"),
            kept_place(url, silent) as place,
        ):
            (place.folder / "shard").write_text("1")
    with kept_place(url, silent):
        pass
    assert at(url).keys() == {"shard"}


def test_a_second_process_is_kept_out(url: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock_module, "BEAT_S", 0.05)
    with kept_place(url, silent), pytest.raises(RunFolderError, match="in use by another"), kept_place(url, silent):
        pass
