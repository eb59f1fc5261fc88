from typing import get_args

from hard_ray.config.records import Control
from hard_ray.runs.summary import LABELS, models_table
from tests.support.helpers import tiny_config

SUMMARY = {
    "models": {
        "teacher": {"clean": 99.0, "shifts": 91.25},
        "random": {"clean": 97.0, "shifts": 80.04},
        "student": {"clean": 98.0, "shifts": 85.0},
    }
}


def test_the_table_has_a_row_for_each_model_and_a_column_for_each_suite():
    header, body = models_table(SUMMARY["models"], tiny_config())
    assert header == ["model", "clean", "shifts"]
    assert body == [
        ["teacher", "99.0", "91.2"],
        ["student, random affine", "97.0", "80.0"],
        ["student, HARD (affine)", "98.0", "85.0"],
    ]


def test_every_control_has_a_label():
    assert set(get_args(Control)) < set(LABELS)
