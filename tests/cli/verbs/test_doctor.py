"""`hardray doctor` tries what it judges."""

from __future__ import annotations

import dataclasses
import fcntl
import os
from pathlib import Path

import pytest
from hard_ray_cli.verbs import doctor as module
from hard_ray_cli.verbs.doctor import (
    Finding,
    _compiler,
    _drawing,
    _folders,
    _memory,
    _output,
    _processor,
    _quota,
    _room,
    _tracking,
)

from hard_ray.config.runtime import RuntimeConfig
from hard_ray.orchestration.cluster import cgroups, hardware
from hard_ray.orchestration.cluster.cgroups import Limits
from hard_ray.orchestration.cluster.resources import Cluster
from hard_ray.reports import figures

GIB = 2**30


def one(findings: list[Finding], what: str) -> Finding:
    (found,) = [finding for finding in findings if finding.what == what]
    return found


def test_a_figure_is_drawn():
    (found,) = _drawing()
    assert found.state == "ok"
    assert found.text.startswith("matplotlib draws one in ")


def test_a_figure_that_cannot_be_drawn_is_a_note(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise ValueError("Key backend: 'bogus' is not a valid value")

    monkeypatch.setattr(figures, "new_figure", fail)
    (found,) = _drawing()
    assert found == Finding(
        "pictures",
        "note",
        "matplotlib draws none (ValueError: Key backend: 'bogus' is not a valid value); runs go on without them",
    )


def limited(monkeypatch: pytest.MonkeyPatch, found: Limits, *, cores: int = 8, memory_gib: float = 16.0) -> None:
    monkeypatch.setattr(hardware, "installed_cores", lambda: cores)
    monkeypatch.setattr(hardware, "installed_memory_gib", lambda: memory_gib)
    for place in (hardware, cgroups):
        monkeypatch.setattr(place, "limits", lambda: found)


def test_the_limits_of_a_container_are_shown(monkeypatch: pytest.MonkeyPatch):
    limited(monkeypatch, Limits(2.5, 6 * GIB))
    assert one(list(_processor()), "processor").text.endswith("2 cores of 8: a control group allows the time of 2.5")
    memory = one(list(_memory()), "memory")
    assert memory.text == "6.0 GiB of 16.0, by a control group; a run on one machine takes about 4"
    assert memory.state == "ok"
    limited(monkeypatch, Limits(None, 2 * GIB))
    assert one(list(_memory()), "memory").state == "wrong"


@pytest.mark.parametrize("quota", [None, 8.0, 64.0])
def test_a_quota_that_limits_nothing_is_not_shown(monkeypatch: pytest.MonkeyPatch, quota: float | None):
    limited(monkeypatch, Limits(quota, None))
    assert _quota() == ""


def test_a_folder_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert one(list(_folders()), "current folder").state == "ok"
    assert one(list(_output(tmp_path / "not/yet/there")), "output here").text == f"{tmp_path} is writable"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [28, 30, 122])  # no space, read-only, quota
def test_a_folder_that_cannot_be_written_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int):
    def fail(**_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module.tempfile, "NamedTemporaryFile", fail)
    found = one(list(_output(tmp_path)), "output here")
    assert found.state == "wrong"
    assert found.text == f"{tmp_path} cannot be written and locked ({os.strerror(number)})"


def test_a_folder_without_locks_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", fail)
    assert one(list(_output(tmp_path)), "output here").state == "wrong"


def test_an_output_below_a_file_is_wrong(tmp_path: Path):
    (tmp_path / "file").write_text("")
    found = one(list(_output(tmp_path / "file/run")), "output")
    assert found.state == "wrong"
    assert "is a file" in found.text


@pytest.mark.parametrize(
    ("uri", "state", "words"),
    [
        (None, "ok", "mlflow.db"),
        ("http://127.0.0.1:1", "wrong", "does not answer"),
        ("file:///tmp/runs", "wrong", "MLflow records in folders no more"),
        ("nonsense://x", "wrong", "MLFLOW_TRACKING_URI is nonsense://x"),
    ],
)
def test_mlflows_address_is_used_as_a_run_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str | None, state: str, words: str
):
    monkeypatch.chdir(tmp_path)
    if uri is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    found = one(list(_tracking(None, None)), "MLflow")
    assert found.state == state
    assert words in found.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("cores", "state"), [(3, "ok"), (2, "note"), (1, "wrong")])
def test_a_cluster_too_small_for_a_pool_is_told_how_it_can_be_used(cores: int, state: str):
    found = _room("h:6379", Cluster(is_own=False, resources={"CPU": float(cores)}), RuntimeConfig(), whole=False)
    assert found.state == state
    assert f"h:6379 {'starts and ' if state == 'ok' else ''}has {cores} CPU" in found.text
    assert ("set runtime.teacher.placement=colocated, which fits (2 CPU)" in found.text) is (state == "note")


def gpus(monkeypatch: pytest.MonkeyPatch, *names: str, capability: tuple[int, int] | None = None) -> None:
    found = dataclasses.replace(hardware.probe(), gpus=names, gpu_has_bf16=bool(names), gpu_capability=capability)
    monkeypatch.setattr(hardware, "probe", lambda: found)


def test_a_gpu_is_shown_with_what_it_computes_in(monkeypatch: pytest.MonkeyPatch):
    gpus(monkeypatch, "Any", "Any", capability=(9, 0))
    assert one(list(_processor()), "GPU").text == "2 x Any, compute capability 9.0, bfloat16, TF32"
    gpus(monkeypatch, "Old", capability=(7, 5))
    assert one(list(_processor()), "GPU").text.endswith("compute capability 7.5, bfloat16, no TF32")


def test_what_torch_compile_lacks_is_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    gpus(monkeypatch)
    monkeypatch.setattr(module.shutil, "which", lambda name: f"/usr/bin/{name}" if name == "g++" else None)
    monkeypatch.setattr(module.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    (tmp_path / "Python.h").touch()
    assert one(list(_compiler()), "compiler").state == "ok"
    (tmp_path / "Python.h").unlink()
    monkeypatch.setattr(module.shutil, "which", lambda _: None)
    found = one(list(_compiler()), "compiler")
    assert found.state == "note"
    assert found.text.startswith("a C++ compiler, Python's headers is not there")
