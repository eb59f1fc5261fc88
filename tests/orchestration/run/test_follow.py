"""What is said of a training that failed or was stopped: no checkpoint is promised that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from hard_ray.errors import HardrayError, StoppedError
from hard_ray.orchestration.run.follow import _judge
from hard_ray.runs.folder import RunFolder


def said(outcome: dict, folder: Path) -> HardrayError:
    with pytest.raises(HardrayError) as caught:
        _judge(outcome, RunFolder(folder))
    return caught.value


@pytest.mark.parametrize("where", ["", "teacher", "controls/kd"])
def test_a_training_that_fails_says_whether_it_goes_on_or_begins_anew(tmp_path: Path, where: str):
    folder = tmp_path / "my run"
    folder.mkdir()
    failed = {"error": RuntimeError("the raylet died")}
    text = str(said(failed, folder))
    assert "there is no checkpoint yet" in text
    assert f"`hardray distill --resume '{folder}'`" in text  # quoted for a shell
    assert "the raylet died" in text
    (folder / where / "checkpoints/step-00000004").mkdir(parents=True)
    assert "continue with `hardray distill --resume" in str(said(failed, folder))
    assert "no checkpoint" not in str(said(failed, folder))


def test_a_stop_that_ray_did_not_survive_is_a_stop_without_a_checkpoint(tmp_path: Path):
    RunFolder(tmp_path).stop_request.touch()
    error = said({"error": RuntimeError("the raylet died")}, tmp_path)
    assert isinstance(error, StoppedError)
    assert error.exit_code == 130
    assert "Ray ended before it wrote a checkpoint; there is no checkpoint yet" in str(error)


def test_a_stop_with_a_checkpoint_says_so(tmp_path: Path):
    (tmp_path / "checkpoints/step-00000004").mkdir(parents=True)
    text = str(said({"value": {"status": "stopped"}}, tmp_path))
    assert text == f"stopped, with a checkpoint; continue with `hardray distill --resume {tmp_path}`"


def test_a_part_of_something_else_is_continued_by_its_command(tmp_path: Path):
    (tmp_path / "teacher/checkpoints/step-00000004").mkdir(parents=True)
    for outcome in ({"error": RuntimeError("the raylet died")}, {"value": {"status": "stopped"}}):
        with pytest.raises(HardrayError, match="continue with `hardray tune --resume birds`") as caught:
            _judge(outcome, RunFolder(tmp_path), "hardray tune --resume birds")
        assert "distill" not in str(caught.value)
