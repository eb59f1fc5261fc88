"""A folder of scores belongs to one view of the images."""

from pathlib import Path

import pytest

from hard_ray.config.loader import load_config
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.config.scoring import ScoreRun, score_run
from hard_ray.errors import RunFolderError
from hard_ray.preparation.folders import ScoreFolder, check_score_folder


def scores(*overrides: str, augmentors: tuple[str, ...] = ("flip",)) -> ScoreRun:
    return score_run(load_config(overrides=overrides), {name: {"kind": name} for name in augmentors})


def test_scores_of_another_training_view_are_not_added_to(tmp_path: Path):
    folder = ScoreFolder(tmp_path)
    folder.settings.write_text(dump_yaml(scores()))
    assert check_score_folder(folder, scores(augmentors=("cutout",))).augmentors.keys() == {"flip", "cutout"}
    with pytest.raises(RunFolderError, match=r"data.augment.reprob was None, now 0.5"):
        check_score_folder(folder, scores("data.augment.reprob=0.5"))
    folder.settings.write_text(dump_yaml(scores("data.augment.reprob=0.5")))
    with pytest.raises(RunFolderError, match=r"data.augment.reprob was 0.5, now None"):
        check_score_folder(folder, scores())
