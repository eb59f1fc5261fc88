"""Weights at a URL are those of the local file or folder."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from safetensors.torch import save_file

from hard_ray.config.networks import StudentConfig, TeacherConfig
from hard_ray.errors import MissingObjectError, StorageError
from hard_ray.export.timm_folder import EvalView, TrainingFacts, export_network
from hard_ray.networks.network import ImageSpec, build_student, build_teacher
from hard_ray.storage import fetched as module
from hard_ray.storage import objects
from hard_ray.storage.address import Remote
from hard_ray.storage.fetched import fetch, fetch_file, fetched
from hard_ray.storage.mirror import Mirror
from tests.support.buckets import Faults

IMAGES = ImageSpec(32, 3, ("a", "b", "c"))


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARDRAY_CACHE", str(tmp_path / "cache"))
    fetched.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    network = build_student(StudentConfig(model="cifar_resnet8"), IMAGES, role="student")
    facts = TrainingFacts("random", 0, "none", "none", "none", 0, EvalView())
    export_network(network, tmp_path / "model", images=IMAGES, facts=facts)
    save_file(network.model.state_dict(), tmp_path / "weights.safetensors")
    return tmp_path


def identity(checkpoint: object) -> str:
    given = {"model": "cifar_resnet8", "checkpoint": str(checkpoint)}
    return build_teacher(TeacherConfig.model_validate(given), IMAGES).identity()


def upload(path: Path, remote: Remote) -> None:
    for each in path.rglob("*"):
        objects.write(remote / each.relative_to(path).as_posix(), each.read_bytes())


def test_a_file(folder: Path, bucket: Remote) -> None:
    objects.write(bucket / "deep/weights.safetensors", (folder / "weights.safetensors").read_bytes())
    assert identity(bucket / "deep/weights.safetensors") == identity(folder / "weights.safetensors")


def test_a_folder_in_the_layout_of_timm(folder: Path, bucket: Remote) -> None:
    upload(folder / "model", bucket / "teachers/model")
    assert identity(bucket / "teachers/model") == identity(folder / "model")


def test_two_processes_that_fetch_at_once_and_a_cache_that_cannot_be_written(
    bucket: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects.write(bucket / "w.bin", b"1")
    real = module.download

    def slower(*given: object) -> str:
        monkeypatch.setattr(module, "download", real)
        assert fetch(bucket / "w.bin").read_bytes() == b"1"  # another process is faster
        return real(*given)

    monkeypatch.setattr(module, "download", slower)
    assert fetch(bucket / "w.bin").read_bytes() == b"1"

    def full(*_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    objects.write(bucket / "v.bin", b"1")
    monkeypatch.setattr(module, "download", full)
    with pytest.raises(StorageError, match=r"v.bin cannot be kept in .*No space left"):
        fetch(bucket / "v.bin")


def test_a_key_that_leads_out_of_its_folder_is_refused(bucket: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    found = objects.Object("../../escaped.txt", 1, None)
    monkeypatch.setattr(module.objects, "listing", lambda _: [found])
    with pytest.raises(StorageError, match="an object outside its folder"):
        fetch(bucket / "folder")


def test_a_right_to_the_object_alone_is_enough(faulty: tuple[Remote, Faults], bucket: Remote) -> None:
    front, faults = faulty
    objects.write(bucket / "deep/w.bin", b"1")
    faults.add(r"manifest\.json|list-type", "denied")
    assert fetch(front / "deep/w.bin").read_bytes() == b"1"
    assert fetch_file(front / "deep/w.bin").read_bytes() == b"1"
    with pytest.raises(StorageError, match="access is denied"):
        fetch(front / "deep")


def test_a_part_of_a_run(folder: Path, bucket: Remote, tmp_path: Path) -> None:
    own = tmp_path / "run"
    own.mkdir()
    (folder / "model").rename(own / "student")
    (own / "config.yaml").write_text("x")
    Mirror(bucket / "runs/birds", own).push()
    assert identity(bucket / "runs/birds/student") == identity(own / "student")
    assert fetch_file(bucket / "runs/birds/config.yaml").read_text() == "x"
    for folder_of_it in ("runs/birds", "runs/birds/student"):
        with pytest.raises(StorageError, match="is a folder; name a file in it"):
            fetch_file(bucket / folder_of_it)
    with pytest.raises(MissingObjectError, match="is no part of the run"):
        fetch_file(bucket / "runs/birds/confg.yaml")


def test_changed_weights_are_fetched_anew(folder: Path, bucket: Remote) -> None:
    remote = bucket / "weights.safetensors"
    for content in (b"one", b"other"):
        objects.write(remote, content)
        fetched.cache_clear()
        assert fetched(remote).read_bytes() == content


def test_missing_weights_are_said(bucket: Remote) -> None:
    with pytest.raises(MissingObjectError, match="does not exist or is empty"):
        identity(bucket / "nowhere")
