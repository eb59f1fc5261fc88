"""The paths in a run's folder, and the lock that keeps a second process out."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hard_ray.errors import RunFolderError, command_line
from hard_ray.files import BEGINNING, is_vacant, make_folder, read_json


class Folder(Protocol):
    """The paths of a folder that hardray writes."""

    @property
    def path(self) -> Path:
        """The folder itself."""
        ...


class Inside:
    """A path in a folder, by its name there."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: Folder, owner: type[Folder] | None = None) -> Path:
        return folder.path / self.name


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths of one run."""

    path: Path
    config = Inside("config.yaml")
    """The resolved configuration."""
    metrics = Inside("metrics.jsonl")
    """One JSON object per logged point."""
    summary = Inside("summary.json")
    """The results; written when the run is finished."""
    evaluation = Inside("evaluation.json")
    """The finished student's results by suite."""
    later_evaluation = Inside("evaluation")
    """The folder of `hardray evaluate`'s results."""
    outcome = Inside("outcome.json")
    """How training ended, and its counters."""
    dataset = Inside("dataset.json")
    """The data set's name, digest and numbers of images, as MLflow shows them."""
    tracking = Inside("tracking.json")
    """The part of the run that MLflow already has."""
    checkpoints = Inside("checkpoints")
    """The folder of checkpoints."""
    student = Inside("student")
    """The finished student in timm's layout."""
    best = Inside("best")
    """The best student on the validation split in timm's layout."""
    gallery = Inside("gallery")
    """Pictures of augmented images, and the snapshots that they are drawn from."""
    report = Inside("report.html")
    """The run's page, written by `hardray report`."""
    classes = Inside("classes.txt")
    """The class names in the order of the outputs, one a line."""
    bad_images = Inside("bad_images.txt")
    """Paths of images that could not be read, one a line."""
    diverged = Inside("diverged")
    """The folder of batches with a non-finite loss."""
    stop_request = Inside("stop")
    """While this file is there, the run stops at the next update, with a checkpoint."""

    @property
    def main(self) -> RunFolder:
        """The run that this one is a control of, or itself."""
        return RunFolder(self.path.parents[1]) if self.path.parent.name == "controls" else self

    @property
    def pictures(self) -> list[Path]:
        """The pictures made while training, oldest first."""
        return sorted(self.gallery.glob("step-*.png"))

    @property
    def records(self) -> list[Path]:
        """The files that are sent to MLflow unchanged."""
        return [self.config, self.summary, self.evaluation, self.bad_images]

    def part(self, name: str) -> RunFolder:
        """The folder of a run within this one: a control, or the teacher's training."""
        return RunFolder(self.path / name)

    @property
    def is_finished(self) -> bool:
        """Whether training reached its end; False also if `outcome.json` is damaged: training then resumes."""
        try:
            outcome = read_json(self.outcome)
        except ValueError:
            return False
        return isinstance(outcome, dict) and outcome.get("status") == "finished"

    def forget_beginning(self) -> None:
        """Remove what an interrupted beginning wrote; nothing was trained yet. A run that has begun stays as it is."""
        if self.config.exists() or not (self.path / BEGINNING).exists():
            return
        for config in (*self.path.glob("controls/*/config.yaml"), self.part("teacher").config, self.classes):
            config.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Refuse a second process; RunFolderError: there is one, or the folder cannot be written or has no locks."""
        try:
            lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise RunFolderError(
                f"{self.path} cannot be written ({error.strerror}); allow it, or choose another --output"
            ) from None
        with lock as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunFolderError(
                    f"{self.path} is in use by another hardray process; wait for it to end, or stop it"
                ) from None
            except OSError as error:
                raise RunFolderError(
                    f"{self.path}: the file system has no locks ({error.strerror}); choose another --output"
                ) from None
            yield


def began_in_vain(path: Path) -> str:
    """What to do about a folder whose beginning was interrupted; empty: it was not."""
    if not (path / BEGINNING).exists():
        return "; check the path"
    return "; its beginning was interrupted: give the command that began it again, with the same --output"


def check_new_run(path: Path) -> None:
    """Check that a new run may use this folder; RunFolderError: it holds a run already, or other files."""
    path = path.expanduser()
    if RunFolder(path).config.exists():
        raise RunFolderError(
            f"{path} holds a run already; continue it with `{command_line('distill', '--resume', path)}`, "
            "or choose another --output"
        )
    if not is_vacant(path):
        raise RunFolderError(f"{path} is there already and is no run folder; choose another --output")


def create_run(path: Path) -> RunFolder:
    """Create a new run folder; RunFolderError: it holds a run already, or cannot be written."""
    check_new_run(path)
    folder = RunFolder(path.expanduser().resolve())
    make_folder(folder.path)
    return folder


def open_run(path: Path) -> RunFolder:
    """Open the folder of an existing run; RunFolderError: there is no run in it."""
    folder = RunFolder(path.expanduser().resolve())
    if not folder.config.is_file():
        raise RunFolderError(f"{path} holds no run: it has no config.yaml{began_in_vain(folder.path)}")
    return folder
