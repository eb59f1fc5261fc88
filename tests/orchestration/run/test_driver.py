"""Decisions of the driver before anything is started."""

import sys
from pathlib import Path

import pytest

from hard_ray.config.run import asks_teacher
from hard_ray.config.teacher_training import teacher_training
from hard_ray.data.sources.build import build_index
from hard_ray.errors import HardrayError
from hard_ray.orchestration.cluster.demand import DataShare
from hard_ray.orchestration.run import driver as module
from hard_ray.orchestration.run.driver import Driver
from hard_ray.orchestration.run.plan import WorkerPlan
from hard_ray.orchestration.run.reporter import Silent
from hard_ray.orchestration.run.teacher import prepare_teacher, start_teacher_pool
from hard_ray.preparation.checks import examine
from hard_ray.runs.folder import RunFolder
from tests.support.helpers import tiny_config


@pytest.mark.parametrize(
    ("controls", "asks"), [("", False), ("labels_only", False), ("kd", True), ("labels_only, random", True)]
)
def test_a_teacher_is_needed_where_the_run_or_a_control_asks_one(controls: str, asks: bool):
    plain = tiny_config(f"experiment.controls=[{controls}]")
    assert asks_teacher(plain)
    labels = plain.model_copy(update={"objective": teacher_training(plain).objective})
    assert asks_teacher(labels) is asks


def test_labels_alone_want_no_teacher_where_none_has_weights(tmp_path: Path):
    config = teacher_training(tiny_config())
    index, folder = build_index(config.data), RunFolder(tmp_path)
    assert prepare_teacher(config, index, folder, print) == (None, True)
    assert start_teacher_pool(config, None, "none", print) is None
    assert prepare_teacher(tiny_config(), index, folder, print)[0] is not None


def test_a_suite_that_cannot_be_measured_is_found_before_the_start(monkeypatch: pytest.MonkeyPatch):
    config = tiny_config("validate.final=[corruptions]")
    examine(config)
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(HardrayError, match="common corruptions need the package imagecorruptions-imaug"):
        examine(config)


def test_the_teachers_own_training_measures_no_final_suites():
    config = tiny_config("validate.suites=[clean, translate]", "validate.final=[shifts]")
    assert teacher_training(config).validation.at_the_end == ("clean", "translate")


@pytest.mark.parametrize(("end", "status"), [(KeyboardInterrupt(), "KILLED"), (HardrayError("no"), "FAILED")])
def test_a_second_ctrl_c_closes_the_run_as_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: BaseException, status: str
):
    def ends(*_: object) -> None:
        raise end

    config = tiny_config()
    driver = Driver(config, build_index(config.data), RunFolder(tmp_path), Silent())
    closed: list[str] = []
    monkeypatch.setattr(module, "follow", ends)
    monkeypatch.setattr(driver, "_close", lambda tracking, runs, status: closed.append(status))
    plan = WorkerPlan((), None, None, DataShare(1, 1), tmp_path / "stop")
    with pytest.raises(type(end)):
        driver.carry_out(plan)
    assert closed == [status]
