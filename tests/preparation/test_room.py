"""The place that a run writes to."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn

from hard_ray.errors import RunFolderError
from hard_ray.preparation.room import check_output, run_bytes
from tests.support.helpers import tiny_config

MIB = 2**20


def test_a_new_folder_is_tried_above_it_and_nothing_is_left(tmp_path: Path):
    said = check_output(tmp_path / "a/b/run", MIB)
    assert "a/b/run can be written; about 1 MiB of" in said
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_is_refused(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("seed: 1")
    with pytest.raises(RunFolderError, match="holds a run already"):
        check_output(tmp_path, MIB)
    check_output(tmp_path, MIB, resumes=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderError, match="no run folder|cannot be written"):
        check_output(tmp_path / "file", MIB)
    with pytest.raises(RunFolderError, match="cannot be written: .*file: .*choose another --output"):
        check_output(tmp_path / "file/run", MIB)


def test_a_folder_that_cannot_be_written_is_refused():
    with pytest.raises(RunFolderError, match="/proc/run cannot be written: /proc: .*choose another --output"):
        check_output(Path("/proc/run"), MIB)


def test_a_disk_without_room_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=300 * MIB))
    check_output(tmp_path / "run", 200 * MIB)
    with pytest.raises(RunFolderError, match=r"writes about 1.0 GiB, and 300 MiB of disk are free; .*checkpoints.keep"):
        check_output(tmp_path / "run", 1024 * MIB)


def test_a_disk_without_inodes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    full = SimpleNamespace(f_bavail=9, f_blocks=9, f_bfree=9, f_frsize=MIB, f_files=9000, f_favail=3)
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    with pytest.raises(RunFolderError, match=r"3 more files fit on its disk \(inodes\)"):
        check_output(tmp_path / "run", MIB)


def test_every_training_of_a_run_is_counted():
    million = nn.Linear(2**20 // 4, 1, bias=False)  # a MiB of weights
    alone = tiny_config("teacher.checkpoint=t.safetensors")
    # 3 checkpoints of weights and two averages, two exports, and what is beside them
    assert run_bytes(alone, million, million) == (3 * 3 + 2 + 100) * MIB
    kept = tiny_config("teacher.checkpoint=t.safetensors", "checkpoints.keep=5", "optim.model_ema=true")
    assert run_bytes(kept, million, million) == (6 * 4 + 2 + 100) * MIB
    controlled = tiny_config("experiment.controls=[kd]")  # and a teacher
    assert run_bytes(controlled, million, million) == (3 * (3 * 3 + 2) + 100) * MIB
