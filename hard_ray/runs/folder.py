"""The paths in a run's folder, and the lock that keeps a second process out."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hard_ray.errors import RunFolderError
from hard_ray.files import is_vacant, make_folder, read_json


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON object per logged point."""
        return self.path / "metrics.jsonl"

    @property
    def summary(self) -> Path:
        """The results; written when the run is finished."""
        return self.path / "summary.json"

    @property
    def evaluation(self) -> Path:
        """The finished student's results by suite."""
        return self.path / "evaluation.json"

    @property
    def later_evaluation(self) -> Path:
        """The folder of `hardray evaluate`'s results."""
        return self.path / "evaluation"

    @property
    def main(self) -> RunFolder:
        """The run that this one is a control of, or itself."""
        return RunFolder(self.path.parents[1]) if self.path.parent.name == "controls" else self

    @property
    def outcome(self) -> Path:
        """How training ended, and its counters."""
        return self.path / "outcome.json"

    @property
    def tracking(self) -> Path:
        """The part of the run that MLflow already has."""
        return self.path / "tracking.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def student(self) -> Path:
        """The finished student in timm's layout."""
        return self.path / "student"

    @property
    def best(self) -> Path:
        """The best student on the validation split in timm's layout."""
        return self.path / "best"

    @property
    def gallery(self) -> Path:
        """Pictures of augmented images, and the snapshots that they are drawn from."""
        return self.path / "gallery"

    @property
    def pictures(self) -> list[Path]:
        """The pictures made while training, oldest first."""
        return sorted(self.gallery.glob("step-*.png"))

    @property
    def records(self) -> list[Path]:
        """The files that are sent to MLflow unchanged."""
        return [self.config, self.summary, self.evaluation, self.bad_images]

    @property
    def report(self) -> Path:
        """The run's page, written by `hardray report`."""
        return self.path / "report.html"

    @property
    def classes(self) -> Path:
        """The class names in the order of the outputs, one a line."""
        return self.path / "classes.txt"

    @property
    def bad_images(self) -> Path:
        """Paths of images that could not be read, one a line."""
        return self.path / "bad_images.txt"

    @property
    def diverged(self) -> Path:
        """The folder of batches with a non-finite loss."""
        return self.path / "diverged"

    @property
    def stop_request(self) -> Path:
        """While this file is there, the run stops at the next update, with a checkpoint."""
        return self.path / "stop"

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


def check_new_run(path: Path) -> None:
    """Check that a new run may use this folder; RunFolderError: it holds a run already, or other files."""
    path = path.expanduser()
    if RunFolder(path).config.exists():
        raise RunFolderError(
            f"{path} holds a run already; continue it with `hardray distill --resume {path}`, "
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
        raise RunFolderError(f"{path} holds no run: it has no config.yaml")
    return folder
