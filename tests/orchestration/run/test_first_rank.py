"""Pictures of a training: no failure of one ends the training, in a whole run of this process."""

import shutil
from pathlib import Path

import pytest

from hard_ray.config.loader import load_config
from hard_ray.config.run import RunConfig
from hard_ray.distillation.loop import Status
from hard_ray.errors import AgreedError
from hard_ray.orchestration.run import first_rank
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.log import read_points
from hard_ray.runs.snapshots import read_snapshot, snapshot_paths
from tests.support.helpers import TINY, assert_equal_bits, make_image_folder, run_here, student_weights, tiny_config

PICTURES = ("tracking.gallery_images=2", "optim.steps=4", "validate.every=0.1")


def folder_config(root: Path, *more: str) -> RunConfig:
    tiny = [override for override in TINY if not override.startswith(("data.", "optim.batch_size"))]
    given = [f"data.path={root}", "data.kind=image_folder", "data.img_size=8", "optim.batch_size=8"]
    models = ["teacher.model=hardray_cnn", "student.model=hardray_mlp", "data.max_bad_fraction=0.9"]
    return load_config(overrides=[*tiny, *given, *models, "tracking.gallery_images=2", "optim.steps=3", *more])


def notes(folder: Path) -> list[str]:
    return [point["text"] for _, point in read_points(folder / "metrics.jsonl") if point["kind"] == "note"]


@pytest.mark.parametrize("broken", ["Camera", "draw_gallery", "save_png", "write_snapshot"])
def test_a_picture_that_fails_is_noted_and_changes_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str):
    assert run_here(tiny_config(*PICTURES), tmp_path / "whole") is Status.FINISHED
    assert RunFolder(tmp_path / "whole").pictures

    def fail(*_: object, **__: object) -> None:
        raise ValueError("no colours left")

    monkeypatch.setattr(first_rank, broken, fail)
    assert run_here(tiny_config(*PICTURES), tmp_path / "run") is Status.FINISHED
    assert "no colours left" in notes(tmp_path / "run")[0]
    assert_equal_bits(student_weights(tmp_path / "run"), student_weights(tmp_path / "whole"))


def test_the_gallery_shows_images_of_several_classes(tmp_path: Path):
    assert run_here(folder_config(make_image_folder(tmp_path / "data")), tmp_path / "run") is Status.FINISHED
    (snapshot, *_) = [read_snapshot(path) for path in snapshot_paths(RunFolder(tmp_path / "run"))]
    assert snapshot.labels.tolist() == [0, 1]


def test_the_gallery_shows_images_that_can_be_read(tmp_path: Path):
    root = make_image_folder(tmp_path / "data")
    paths = sorted((root / "val").rglob("*.png"))
    for path in (paths[0], paths[-1], paths[1]):  # the two that would be shown, and the next
        path.write_bytes(b"no picture")
    assert run_here(folder_config(root), tmp_path / "run") is Status.FINISHED
    assert notes(tmp_path / "run") == []
    (snapshot, *_) = [read_snapshot(path) for path in snapshot_paths(RunFolder(tmp_path / "run"))]
    assert len(snapshot.labels) == 1  # the readable one of the second batch


def test_a_validation_split_that_cannot_be_read_is_said(tmp_path: Path):
    root = make_image_folder(tmp_path / "data")
    shutil.copytree(root / "val", root / "test")
    broken = sorted((root / "val").rglob("*.png"))
    for path in broken:
        path.write_bytes(b"no picture")
    words = f"'clean': none of its images can be read, first {broken[0]} .no image can be read from it: .*; repair"
    with pytest.raises(AgreedError, match=words):
        run_here(folder_config(root), tmp_path / "run")
    assert "no image of the val split can be read" in notes(tmp_path / "run")[0]
