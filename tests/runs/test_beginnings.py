"""A beginning that was interrupted anywhere is recognised and begun anew, for every folder that hardray writes."""

from __future__ import annotations

import errno
import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from hard_ray.config.run import RunConfig
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.config.space import load_space
from hard_ray.data.index import ImageIndex
from hard_ray.data.sources.build import build_index
from hard_ray.errors import HardrayError, RunFolderError
from hard_ray.files import BEGINNING, beginning, is_vacant, make_folder, write_json, write_text
from hard_ray.orchestration.run.driver import Driver
from hard_ray.orchestration.run.plan import write_configs
from hard_ray.orchestration.run.reporter import Silent
from hard_ray.orchestration.search.begun import settle, write_begun
from hard_ray.preparation.folders import AutoencoderFolder, SetFolder
from hard_ray.runs.folder import check_new_run, create_run, open_run
from hard_ray.runs.search_folder import SearchFolder, check_new_search, open_search
from tests.support.helpers import tiny_config


class Failing:
    """Lets the n-th operation on files below a folder fail, and from then on all of them, as a full disk does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, n: int, code: int) -> None:
        self.folder, self.n, self.code, self.seen = str(folder), n, code, 0
        for name in ("mkdir", "open", "replace", "rename", "unlink", "utime"):
            monkeypatch.setattr(os, name, self._through(getattr(os, name)))
        self._open = open
        monkeypatch.setattr("io.open", self._through(open))
        monkeypatch.setattr(os, "fsync", self._through(os.fsync, always=True))

    def _through(self, function: Callable, *, always: bool = False) -> Callable:
        def called(*arguments, **options):
            if always or (arguments and str(arguments[0]).startswith(self.folder)):
                self.seen += 1
                if self.seen > self.n:
                    raise OSError(self.code, os.strerror(self.code), str(arguments[0]))
            return function(*arguments, **options)

        return called


@functools.cache
def images() -> ImageIndex:
    return build_index(tiny_config().data)


@functools.cache
def config_with(*overrides: str) -> RunConfig:
    return tiny_config(*overrides)


def begin_run(folder: Path, *overrides: str) -> None:
    config = config_with("experiment.controls=[kd]", *overrides)
    run = create_run(folder)
    with run.locked():
        run.forget_beginning()
        driver = Driver(config, images(), run, Silent())
        write_configs(run, driver.index, driver.plans(train_teacher=True))


def begin_search(folder: Path, *overrides: str) -> None:
    place = folder.parent
    (place / "base.yaml").write_text(dump_yaml(config_with(*overrides)))
    (place / "mine.yaml").write_text("base: {config: base.yaml}\nparameters: {optim.lr: {uniform: [0.1, 0.2]}}\n")
    search = load_space(str(place / "mine.yaml"))
    check_new_search(folder)
    made = SearchFolder(folder)
    make_folder(made.path)
    with made.locked(), beginning(folder):
        write_begun(made, search)


def interrupted(begin: Callable, folder: Path, n: int, code: int) -> bool:
    """Whether the n-th operation was reached and failed."""
    with pytest.MonkeyPatch.context() as patch:
        failing = Failing(patch, folder, n, code)
        try:
            begin(folder)
        except HardrayError as error:
            text = str(error)
            assert os.strerror(code) in text and ("choose another --output" in text or "same command" in text)
    return failing.seen > n


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_run_whose_beginning_failed_anywhere_is_begun_anew(tmp_path: Path, code: int):
    n = 0
    while interrupted(begin_run, folder := tmp_path / f"run{n}", n, code):
        n += 1
        if (folder / "config.yaml").exists():
            assert open_run(folder).classes.exists()
            continue
        check_new_run(folder)
        begin_run(folder, "seed=7", "experiment.controls=[labels_only]")
        run = open_run(folder)
        assert "seed: 7" in run.config.read_text()
        assert "seed: 7" in run.part("controls/labels_only").config.read_text()
        assert "seed: 7" not in run.part("teacher").config.read_text()  # the recipe has a seed of its own
        assert not run.part("controls/kd").config.exists()
        assert not (folder / BEGINNING).exists()
    assert n > 15


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_search_whose_beginning_failed_anywhere_is_begun_anew(tmp_path: Path, code: int):
    n = 0
    (tmp_path / "0").mkdir()
    while interrupted(begin_search, folder := tmp_path / str(n) / "s", n, code):
        n += 1
        (tmp_path / str(n)).mkdir()
        if (folder / "space.yaml").exists():
            assert settle(open_search(folder), None).base.seed == 0
            continue
        begin_search(folder, "seed=7")
        assert settle(open_search(folder), None).base.seed == 7
    assert n > 10


def killed(folder: Path, n: int) -> bool:
    """Whether a process that began a run was killed at its n-th renaming."""
    child = os.fork()
    if child == 0:
        seen, replace = 0, os.replace

        def killing(*arguments):
            nonlocal seen
            seen += 1
            if seen > n:
                os.kill(os.getpid(), signal.SIGKILL)
            return replace(*arguments)

        os.replace = os.rename = killing
        begin_run(folder)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_a_run_that_was_killed_as_it_began_is_begun_anew(tmp_path: Path):
    n = 0
    while killed(folder := tmp_path / str(n), n):
        n += 1
        assert (folder / BEGINNING).exists()
        assert any(path.name.endswith(".tmp") for path in folder.rglob("*"))
        with pytest.raises(RunFolderError, match="its beginning was interrupted: give the command that began it again"):
            open_run(folder)
        begin_run(folder)
        assert open_run(folder).part("controls/kd").config.exists()
    assert n == 4  # the classes and three configurations


def test_unfinished_files_and_a_lock_leave_a_folder_vacant_and_anything_else_does_not(tmp_path: Path):
    for name in (".lock", ".config.yaml.tmp", ".training.yaml.tmp", ".manifest.json.tmp", ".scoring.yaml.tmp"):
        (tmp_path / name).touch()
    assert is_vacant(tmp_path)
    assert is_vacant(tmp_path / "new")
    for name in ("notes.txt", "a.tmp", ".env"):
        (tmp_path / name).touch()
        assert not is_vacant(tmp_path)
        (tmp_path / name).unlink()
    (tmp_path / "file").touch()
    assert not is_vacant(tmp_path / "file")


def test_every_other_folder_takes_up_an_interrupted_beginning(tmp_path: Path):
    from hard_ray.orchestration.generate import job as generate
    from hard_ray.orchestration.train_autoencoder import check_output

    for name in (".lock", ".training.yaml.tmp", ".manifest.json.tmp", ".evaluation.json.tmp"):
        (tmp_path / name).touch()
    check_output(AutoencoderFolder(tmp_path))
    generate.check_output(SetFolder(tmp_path))


def test_a_write_that_fails_leaves_neither_half_a_file_nor_the_unfinished_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_text(tmp_path / "a.json", "old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError, match="full"):
        write_json(tmp_path / "a.json", {"new": 1})
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.json", "old")]


def test_a_folder_that_has_begun_keeps_its_configurations(tmp_path: Path):
    begin_run(tmp_path / "run")
    run = open_run(tmp_path / "run")
    before = run.config.read_text()
    (run.path / BEGINNING).touch()  # killed after the last file
    run.forget_beginning()
    config = tiny_config("seed=9")
    driver = Driver(config, images(), run, Silent())
    write_configs(run, driver.index, driver.plans(train_teacher=True))
    assert run.config.read_text() == before
    assert not (run.path / BEGINNING).exists()
