"""Pictures and plots that fail are told, and end nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hard_ray_cli.reporter import ConsoleReporter
from rich.console import Console

from hard_ray.orchestration.extras import extra
from hard_ray.orchestration.run import first_rank
from hard_ray.runs.log import read_points
from hard_ray.runs.record import read_record
from tests.support.helpers import finished_run, tiny_config


def test_a_failure_is_said_with_its_reason():
    said: list[str] = []
    with extra("the plots", said.append):
        raise ValueError("no font\nand more")
    assert said == [
        "the plots could not be made (ValueError: no font); nothing else is missing, and `hardray doctor` tries what "
        "pictures need"
    ]
    with pytest.raises(KeyboardInterrupt), extra("the plots", said.append):
        raise KeyboardInterrupt


@pytest.mark.parametrize("part", ["save_png", "draw_gallery", "write_snapshot"])
def test_a_gallery_that_cannot_be_drawn_ends_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("matplotlib has no fonts")

    monkeypatch.setattr(first_rank, part, fail)
    folder = finished_run(tiny_config("optim.steps=3", "tracking.gallery_images=2"), tmp_path / "run")
    notes = [point for _, point in read_points(folder.metrics) if point["kind"] == "note"]
    assert len(notes) >= 1
    assert "the gallery of update 0 could not be made (RuntimeError: matplotlib has no fonts)" in notes[0]["text"]
    assert (folder.student / "model.safetensors").is_file()
    assert read_record(folder.path).updates == 3  # the record of such a run is read as before
    reporter = ConsoleReporter(Console(record=True, width=200))
    plan = type("Plan", (), {"folder": folder.path, "name": "student"})
    for _ in range(2):
        reporter.watch([plan])
    assert reporter.console.export_text().count("the gallery of update 0 could not be made") == 1
