"""Folders that Ray cannot use are named before it starts."""

from __future__ import annotations

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


@pytest.mark.parametrize("place", ["TMPDIR", "/dev/shm"])
def test_a_folder_that_cannot_be_written_or_is_full_is_named(monkeypatch: pytest.MonkeyPatch, place: str):
    def written(dir: Path) -> object:
        if (str(dir) == "/dev/shm") is (place == "/dev/shm"):
            raise OSError(30, os.strerror(30))
        return open(os.devnull, "wb")

    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    monkeypatch.setattr(tempfile, "TemporaryFile", written)
    text = refusal()
    assert place in text
    assert "nothing can be written (Read-only file system); " in text
    monkeypatch.undo()
    monkeypatch.setenv("TMPDIR", "/tmp")
    monkeypatch.setattr(places, "free_gib", lambda path: 0.01)
    assert "where 0.01 GiB are free and Ray needs 0.1; make room" in refusal()
