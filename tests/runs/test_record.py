from pathlib import Path

import pytest

from hard_ray.config.controller import Phase
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.errors import RunFolderError
from hard_ray.files import write_json
from hard_ray.runs.log import MetricsLog
from hard_ray.runs.record import RunRecord, read_record
from tests.support.helpers import tiny_config


def run_at(path: Path, *overrides: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.yaml").write_text(dump_yaml(tiny_config(*overrides)))
    return path


def log(path: Path, *points: dict) -> None:
    for point in points:
        MetricsLog(path / "metrics.jsonl").append({"time": 0.0, **point})


def train(step: int, **values: float) -> dict:
    return {"kind": "train", "step": step, **values}


def switch(first: int, to: str) -> dict:
    numbers = {"switch/phase": int(to == "augmentor"), "switch/disagreement": 0.5}
    return {"kind": "switch", "step": first - 1, "from_update": first, "to": to, "reason": "m < l_min", **numbers}


def evaluation(top1: float, teacher: float | None = None) -> dict:
    suites = {"clean": {"top1": top1, "ece": 1.0, "n": 9}}
    return {
        "split": "test",
        "suites": suites,
        "teacher": {"clean": {"top1": teacher, "ece": 1.0, "n": 9}} if teacher else {},
    }


def test_phases_follow_each_other_without_a_gap(tmp_path: Path):
    run = run_at(tmp_path)
    log(run, train(5), switch(8, "augmentor"), train(10), switch(11, "student"), train(15))
    assert read_record(run).phases() == [
        (Phase.STUDENT, 0, 7),
        (Phase.AUGMENTOR, 7, 10),
        (Phase.STUDENT, 10, 15),
    ]


def test_a_run_that_has_just_begun_is_a_record_too(tmp_path: Path):
    record = read_record(run_at(tmp_path / "some-run"))
    assert (record.name, record.updates, record.summary, record.evaluations) == ("some-run", 0, None, {})
    assert record.phases() == [(Phase.STUDENT, 0, 0)]


def test_evaluations_stand_in_the_order_of_the_table(tmp_path: Path):
    run = run_at(tmp_path, "experiment.controls=[labels_only,kd]")
    for name, found in (("labels_only", evaluation(50.0)), ("kd", evaluation(60.0, teacher=99.0))):
        (run / "controls" / name).mkdir(parents=True)
        write_json(run / "controls" / name / "evaluation.json", found)
    record = read_record(run)
    assert list(record.evaluations) == ["teacher", "labels_only", "kd"]
    assert record.evaluations["teacher"]["clean"]["top1"] == 99.0
    assert record.split == "test"
    write_json(run / "evaluation.json", evaluation(70.0, teacher=98.0))
    record = read_record(run)
    assert list(record.evaluations) == ["teacher", "labels_only", "kd", "student"]
    assert record.evaluations["teacher"]["clean"]["top1"] == 98.0


def seconds(record: RunRecord) -> dict[str, float]:
    return {name: pytest.approx(value) for name, value in record.seconds().items()}


def test_the_time_of_an_unfinished_run_is_added_up_from_its_log(tmp_path: Path):
    run = run_at(tmp_path)
    times = {"time/step": 0.5, "time/data_wait": 0.1}
    log(run, train(10, **times, **{"time/teacher_wait": 0.2}), train(14, **times))
    assert seconds(read_record(run)) == {"total": 7.0, "data_wait": 1.4, "teacher_wait": 2.0}
    write_json(run / "outcome.json", {"status": "finished", "seconds": {"total": 9.0}})
    assert seconds(read_record(run)) == {"total": 9.0}


@pytest.mark.parametrize("name", ["summary.json", "outcome.json", "evaluation.json", "metrics.jsonl"])
def test_a_damaged_file_is_an_error_that_a_user_can_read(tmp_path: Path, name: str):
    run = run_at(tmp_path)
    (run / name).write_text("{broken\n")
    with pytest.raises(RunFolderError, match="a file of the run is damaged"):
        read_record(run)


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path):
    run = run_at(tmp_path)
    log(run, train(5))
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write('{"kind": "tra')
    assert [point["step"] for point in read_record(run).points] == [5]
