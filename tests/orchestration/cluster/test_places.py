"""Folders that Ray cannot use are named before it starts."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from hard_ray.errors import ClusterError
from hard_ray.orchestration.cluster import places
from hard_ray.orchestration.cluster.places import LONGEST_SOCKET, SOCKET, check_places


def refusal() -> str:
    with pytest.raises(ClusterError) as caught:
        check_places()
    return str(caught.value)


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_folder_too_long_for_sockets_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    folder = tmp_path / ("ä" * 40)
    folder.mkdir()
    monkeypatch.setenv(name, str(folder))
    text = refusal()
    assert text.startswith(f"{name} is {folder}")
    assert f"the system allows {LONGEST_SOCKET}" in text
    assert "set RAY_TMPDIR to a folder" in text


def test_the_longest_folder_that_fits_is_let_through(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    most = LONGEST_SOCKET - len(SOCKET)
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        folder = Path(short) / ("x" * (most - len(short) - 1))
        folder.mkdir()
        monkeypatch.setenv("TMPDIR", str(folder))
        check_places()
        monkeypatch.setenv("TMPDIR", f"{folder}x")
        assert f"{LONGEST_SOCKET + 1} bytes" in refusal()


def test_a_relative_folder_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_TMPDIR", "tmp")
    assert "wants an absolute path" in refusal()


def failing(monkeypatch: pytest.MonkeyPatch, place: str, number: int) -> None:
    """Nothing can be written to the folder of this name, for the reason of this number."""

    def written(dir: Path) -> object:
        if str(dir) == place:
            raise OSError(number, os.strerror(number))
        return open(os.devnull, "wb")

    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    monkeypatch.setattr(tempfile, "TemporaryFile", written)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, number: int):
    failing(monkeypatch, "/tmp", number)
    assert f"TMPDIR is /tmp, where nothing can be written ({os.strerror(number)}); set TMPDIR" in refusal()


def test_a_full_folder_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    monkeypatch.setattr(places, "free_gib", lambda path: 0.01)
    assert "TMPDIR is /tmp, where 0.01 GiB are free and Ray needs 0.1; make room" in refusal()


def test_shared_memory_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch):
    failing(monkeypatch, "/dev/shm", errno.EROFS)
    text = refusal()
    assert "/dev/shm is the place of Ray's object store" in text
    assert "Read-only file system" in text
    assert "--shm-size" in text


def test_small_or_full_shared_memory_is_left_to_ray_which_takes_slower_files(monkeypatch: pytest.MonkeyPatch):
    failing(monkeypatch, "/dev/shm", errno.ENOSPC)
    check_places()
