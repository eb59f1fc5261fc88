"""The newcomer's path: the tutorial's own commands, in an empty folder."""

from __future__ import annotations

import pytest

from documentation import run
from documentation.pages import blocks, hardray_arguments

PATH = ["train-teacher", "distill", "evaluate", "export", "predict"]


def test_the_tutorial_goes_from_images_to_a_prediction():
    marked = [block for block in blocks("tutorial.md") if block.folder == "tutorial"]
    lines = [line for block in marked for line in block.commands if "--dry-run" not in line]
    verbs = [words[0] for line in lines if (words := hardray_arguments(line))]
    places = [verbs.index(verb) for verb in PATH]
    assert places == sorted(places)
    assert hardray_arguments(marked[0].commands[0]) is None  # the images come first


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_command_of_the_tutorial_works_in_an_empty_folder(capfd: pytest.CaptureFixture[str]):
    assert run.main(["tutorial.md"]) == 0, capfd.readouterr().out[-4000:]
    out = capfd.readouterr().out
    assert " 0 failed, 0 skipped" in out
    assert "FAILED" not in out
