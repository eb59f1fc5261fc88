"""Workers, driver and teacher on machines that share no folder: the bucket is between them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hard_ray.errors import RunFolderError
from hard_ray.orchestration.cluster.demand import DataShare
from hard_ray.orchestration.run import own_copy as module
from hard_ray.orchestration.run.own_copy import own_copy
from hard_ray.orchestration.run.plan import RunPlan, WorkerPlan
from hard_ray.ranks import Ranks
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.place import is_followed, known_place, new_place, read_place
from hard_ray.storage import lock, objects
from hard_ray.storage.address import Remote
from hard_ray.storage.mirror import Mirror
from tests.support.buckets import Server, server_with
from tests.support.helpers import tiny_config


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server_with(tmp_path_factory.mktemp("moto") / "log", "runs") as started:
        yield started


@pytest.fixture
def on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Go to another machine, by its name."""
    monkeypatch.setattr(lock, "SETTLE_S", 0.05)
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.05)

    def go(machine: str) -> Path:
        monkeypatch.setenv("HARDRAY_CACHE", str(tmp_path / machine))
        return tmp_path / machine

    return go


def test_each_machine_writes_to_its_own_folder_and_the_bucket_joins_them(server: Server, on, tmp_path):
    url = server.url("runs", "birds")
    driver = on("driver")
    with new_place(Path(url), print) as place:
        RunFolder(place.folder).path.mkdir(parents=True)
        RunFolder(place.folder).config.write_text("seed: 1\n")
        place.send()
        config = tiny_config()
        runs = (
            RunPlan("kd", "control", config, place.folder / "controls" / "kd"),
            RunPlan("birds", "main", config, place.folder),
        )
        plan = WorkerPlan(runs, None, None, DataShare(1, 1), place.folder / "stop", url=place.url, owner=place.owner)

        student = on("student")
        with own_copy(plan, Ranks()) as copy:
            control, main = (run.folder for run in copy.plan.runs)
            assert main.is_relative_to(student)
            assert control == main / "controls" / "kd"
            assert RunFolder(main).config.read_text() == "seed: 1\n"
            checkpoint = ("checkpoints/step-1/student", "checkpoints/step-1/state.json")
            for name in (*checkpoint, "teacher/student/model", "metrics.jsonl"):
                (main / name).parent.mkdir(parents=True, exist_ok=True)
                (main / name).write_text(name)
            copy.send_later()
            objects.write(Remote.parse(url) / "stop", b"")  # the driver was asked to stop
            for _ in range(400):
                if copy.plan.stop.exists():
                    break
                time.sleep(0.05)
            assert copy.plan.stop.is_relative_to(student)
            assert copy.plan.stop.exists()
        assert not copy.plan.stop.exists()

        on("driver")
        assert place.mirror is not None
        place.mirror.pull(is_followed)
        RunFolder(place.folder).summary.write_text("{}\n")
        place.send()
        assert [path.name for path in driver.rglob("step-1/*")] == ["state.json"]  # MLflow gets the points up to it
        assert list(driver.rglob("metrics.jsonl"))

    teacher = on("teacher")
    mirror = Mirror.of(Remote.parse(url))
    mirror.pull(lambda name: name.startswith("teacher/student/"))
    names = [path.name for path in teacher.rglob("*") if path.is_file() and path.name[0] != "."]
    assert names == ["model"]

    elsewhere = on("elsewhere")
    with known_place(Path(url), print) as place, own_copy(plan, Ranks()) as copy:
        assert place.folder == copy.plan.runs[-1].folder
        assert (place.folder / "checkpoints/step-1/student").read_text() == "checkpoints/step-1/student"
        with pytest.raises(RunFolderError, match="in use by another"), known_place(Path(url), print):
            pass
    with read_place(f"{url.replace('birds?', 'birds/teacher/student?')}") as folder:
        assert Path(folder).is_relative_to(elsewhere)
        assert (Path(folder) / "model").is_file()
    with pytest.raises(RunFolderError, match="holds a run already"), new_place(Path(url), print):
        pass


def test_what_a_reader_writes_reaches_the_bucket_unless_a_run_goes_on(server: Server, on, caplog):
    url = server.url("runs", "cats")
    on("driver")
    with new_place(Path(url), print) as place:
        place.folder.mkdir(parents=True)
        RunFolder(place.folder).config.write_text("seed: 1\n")
        place.send()
        on("reader")
        with read_place(url, writes=True) as folder:
            (Path(folder) / "report.html").write_text("1")
        assert "report.html" not in Mirror.of(Remote.parse(url))._manifest()[0]
        assert "stays in" in caplog.text
        on("driver")
    on("reader")
    with read_place(url, writes=True):
        pass
    assert "report.html" in Mirror.of(Remote.parse(url))._manifest()[0]


def plan_at(url: str, folder: Path, part: str, **more: object) -> WorkerPlan:
    runs = (RunPlan("one", "main", tiny_config(), folder / part),)
    return WorkerPlan(runs, None, None, DataShare(1, 1), folder / "stop", url=url, **more)  # type: ignore[arg-type]


def test_a_teacher_alone_is_trained_in_its_part_and_notes_stay_in_the_folder(on, tmp_path):
    url, folder = f"file://{tmp_path}/bucket/search", on("driver") / "search"
    plan = plan_at(url, folder, "teacher", group_note=folder / "placement_group.txt")
    here = on("worker")
    with own_copy(plan, Ranks()) as copy:
        root = Mirror.of(Remote.parse(url)).folder
        assert root.is_relative_to(here)
        assert copy.plan.runs[0].folder == root / "teacher"
        assert copy.plan.group_note == root / "placement_group.txt"


def test_a_request_to_stop_that_a_driver_left_on_this_node_long_ago_is_forgotten(on, tmp_path):
    url = f"file://{tmp_path}/bucket/run"
    on("worker")
    stop = RunFolder(Mirror.of(Remote.parse(url)).folder).stop_request
    stop.parent.mkdir(parents=True)
    for age, stays in ((0.0, True), (module.OLD_AFTER_S + 10, False)):
        stop.touch()
        os.utime(stop, (time.time() - age, time.time() - age))
        with own_copy(plan_at(url, tmp_path / "driver" / "run", "."), Ranks()):
            assert stop.exists() == stays


def test_what_a_reader_writes_is_sent_though_it_fails_and_though_a_dead_run_left_its_lock(
    server: Server, on, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("hard_ray.storage.lock.STALE_S", 0.5)
    url = server.url("runs", "dogs")
    on("driver")
    with new_place(Path(url), print) as place:
        place.folder.mkdir(parents=True)
        RunFolder(place.folder).config.write_text("seed: 1\n")
        place.send()
    objects.write(Remote.parse(url) / "lock.json", b'{"owner": "gone", "host": "pod-0", "pid": 7, "beat": 3}')
    on("reader")
    with pytest.raises(ZeroDivisionError), read_place(url, writes=True) as folder:
        (Path(folder) / "evaluation").mkdir()
        (Path(folder) / "evaluation/suite.json").write_text("1")
        raise ZeroDivisionError
    assert "evaluation/suite.json" in Mirror.of(Remote.parse(url)).files()
    assert objects.stat(Remote.parse(url) / "lock.json") is None
