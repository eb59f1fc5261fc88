import errno
import json
import os
import pwd
import tempfile
import time
from pathlib import Path

import pytest

from hard_ray.errors import RunFolderError
from hard_ray.files import LEFT_AFTER_S, cache_folder, home_folder, replacing_folder, write_json
from hard_ray.runs.folder import RunFolder, create_run, open_run
from hard_ray.runs.log import LogTail, MetricsLog, read_points


def test_a_folder_with_a_run_is_not_used_again(tmp_path: Path):
    folder = create_run(tmp_path / "run")
    folder.config.write_text("seed: 1\n")
    with pytest.raises(RunFolderError, match=r"holds a run already; continue it with `hardray distill --resume"):
        create_run(tmp_path / "run")


def test_a_folder_with_something_else_is_not_used(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunFolderError, match="is no run folder"):
        create_run(tmp_path)
    with pytest.raises(RunFolderError, match="is no run folder"):
        create_run(tmp_path / "thesis.tex")


def test_a_resume_wants_a_run(tmp_path: Path):
    with pytest.raises(RunFolderError, match="holds no run"):
        open_run(tmp_path)


def test_a_second_process_is_refused(tmp_path: Path):
    folder = create_run(tmp_path / "run")
    with folder.locked(), pytest.raises(RunFolderError, match="in use by another hardray process"), folder.locked():
        pass
    with folder.locked():
        pass


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path):
    folder = create_run(tmp_path / "run")
    (folder.path / ".lock").mkdir()  # the superuser may write files without permissions
    with (
        pytest.raises(RunFolderError, match=r"run cannot be written \(.*\); allow it, or choose another --output"),
        folder.locked(),
    ):
        pass


def test_a_file_system_without_locks_is_told_from_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    refused = pytest.raises(RunFolderError, match=r"has no locks \(No locks available\); choose another --output")
    with refused, create_run(tmp_path / "run").locked():
        pass


def test_a_line_that_a_full_disk_tore_is_passed_over_and_nothing_else(tmp_path: Path):
    path, tail = tmp_path / "system.jsonl", LogTail()
    path.write_bytes(b'{"step": 0}\n{"step": 1, "ti{"step": 1}\n\0\0\n{"step": 2}\n{"step": 3}\n{"st')
    assert [point["step"] for point in tail.read(path, until=2)] == [0, 2]
    tail.advance()
    assert [point["step"] for point in tail.read(path)] == [3]
    tail.advance()
    assert list(tail.read(path)) == []


def test_a_log_is_cut_beyond_a_step_and_at_a_half_line(tmp_path: Path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in range(1, 8):
        log.append({"step": step, "name": "ü"})
    with log.path.open("a") as stream:
        stream.write('{"step": 8, "na')
    log.cut(5)
    assert [point["step"] for _, point in read_points(log.path)] == [1, 2, 3, 4, 5]
    assert log.path.read_text().endswith("}\n")
    log.append({"step": 6})
    assert [point["step"] for _, point in read_points(log.path)][-1] == 6


def test_cutting_a_log_that_is_not_there_is_fine(tmp_path: Path):
    MetricsLog(tmp_path / "none.jsonl").cut(3)


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path):
    target = tmp_path / "student"
    with replacing_folder(target) as new:
        (new / "one").write_text("1")
    with pytest.raises(RuntimeError, match="stop"), replacing_folder(target) as new:
        (new / "two").write_text("2")
        raise RuntimeError("stop")
    assert [path.name for path in target.iterdir()] == ["one"]
    with replacing_folder(target) as new:
        (new / "three").write_text("3")
    assert [path.name for path in target.iterdir()] == ["three"]
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_of_two_processes_that_make_the_same_folder_the_first_wins(tmp_path: Path):
    target = tmp_path / "teacher"
    with pytest.raises(OSError, match="not empty"), replacing_folder(target) as second:
        (second / "weights").write_text("of the second")
        with replacing_folder(target) as first:
            (first / "weights").write_text("of the first")
        (second / "config").write_text("of the second")
    assert {path.name: path.read_text() for path in target.iterdir()} == {"weights": "of the first"}
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]


def test_what_a_killed_process_left_of_a_folder_is_removed_once_nobody_writes_to_it(tmp_path: Path):
    for name in (".student.01234567.tmp", ".student.89abcdef.tmp", ".student.old", ".other.01234567.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text("half")
        os.utime(tmp_path / name, (0, 0))
    old = time.time() - LEFT_AFTER_S - 60
    for name in (".student.01234567.tmp", ".other.01234567.tmp"):
        os.utime(tmp_path / name / "weights", (old, old))
    with replacing_folder(tmp_path / "student"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"student", ".student.89abcdef.tmp", ".other.01234567.tmp"}


def test_a_folder_that_was_replaced_can_be_read_by_those_who_read_others(tmp_path: Path):
    (tmp_path / "other").mkdir()
    with replacing_folder(tmp_path / "teacher"):
        pass
    assert (tmp_path / "teacher").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_json_is_replaced_in_one_step(tmp_path: Path):
    write_json(tmp_path / "x.json", {"a": 1})
    write_json(tmp_path / "x.json", {"a": "ü"})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"a": "ü"}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_run_is_finished_when_its_outcome_says_so(tmp_path: Path):
    folder = RunFolder(tmp_path)
    assert not folder.is_finished
    write_json(folder.outcome, {"status": "stopped"})
    assert not folder.is_finished
    write_json(folder.outcome, {"status": "finished"})
    assert folder.is_finished


@pytest.mark.parametrize("content", ["", "[]", '"finished"', '{"status": "fin'])
def test_a_run_whose_outcome_is_damaged_is_not_finished(tmp_path: Path, content: str):
    folder = RunFolder(tmp_path)
    folder.outcome.write_text(content)
    assert not folder.is_finished


def test_a_user_without_a_home_has_a_cache_among_temporary_files(monkeypatch: pytest.MonkeyPatch):
    for name in ("HARDRAY_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])  # as in a container with a number as its user
    assert home_folder() == Path(tempfile.gettempdir()) / f"hardray-{os.getuid()}"
    assert cache_folder() == home_folder() / ".cache" / "hardray"
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_folder() == Path("/home/me/.cache/hardray")
