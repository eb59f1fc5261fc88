"""The paths in the folder of a search and of its trials."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hard_ray.errors import RunFolderError, command_line
from hard_ray.runs.folder import Inside, RunFolder, began_in_vain, check_new_run
from hard_ray.runs.place import Kind, is_followed
from hard_ray.storage.address import Remote, is_url
from hard_ray.storage.mirror import Mirror, url_of, working_copy

PLOTS = ("history.png", "importance.png", "parallel.png", "pareto.png")


@dataclass(frozen=True, slots=True)
class SearchFolder(RunFolder):
    """The paths of one search; a follower sends them to MLflow as it does those of a run."""

    url: str | None = None
    """The URL that the folder is kept at, below which every trial is a run at a URL of its own; None: there is none."""

    config = Inside("space.yaml")
    """The space, resolved; its base configuration is `base.yaml` beside it."""
    base = Inside("base.yaml")
    """The base configuration, resolved."""
    begun = Inside("begun.json")
    """The space and its base configuration as the search began, against edits; written last of the three."""
    trial_base = Inside("trial_base.yaml")
    """The base configuration of this search's trials, with the settings that depend on the hardware."""
    results = Inside("results.json")
    """All trials, and which is best."""
    best_config = Inside("best.yaml")
    """The base configuration with the best settings; `hardray distill -c` takes it."""
    leader_board = Inside("leader_board.json")
    """The trials as a table, the best on top, as MLflow shows tables."""
    tuner = Inside("tuner")
    """Ray Tune's own state, for a resume."""

    @property
    def records(self) -> list[Path]:
        """The files that are sent to MLflow unchanged."""
        return [self.config, self.base, self.results, self.best_config, self.leader_board, *self.plots]

    @property
    def plots(self) -> list[Path]:
        """The figures that were drawn."""
        return [path for name in PLOTS if (path := self.path / name).is_file()]

    @classmethod
    def at(cls, url: str) -> SearchFolder:
        """The search at a URL, in this machine's working copy."""
        return cls(working_copy(Remote.parse(url)), url)

    def trial(self, name: str) -> TrialFolder:
        """The run folder of a trial; where the search is at a URL, this machine's working copy of the trial's URL."""
        if self.url is None:
            return TrialFolder(self.path / "trials" / name)
        remote = Remote.parse(self.url) / "trials" / name
        return TrialFolder(working_copy(remote), str(remote), self.path / f"sent-{name}.json")


@dataclass(frozen=True, slots=True)
class TrialFolder(RunFolder):
    """The paths of a trial's run."""

    url: str | None = None
    """The URL that the folder is kept at; None: there is none."""
    sent: Path | None = None
    """The part of the run that MLflow has, where it is not in the folder.

    Of a trial at a URL it is in the search's folder: the search's driver alone writes there, and the trial's process
    alone sends the trial.
    """

    @property
    def tracking(self) -> Path:  # type: ignore[override]
        """The part of the run that MLflow already has."""
        return self.sent or self.path / "tracking.json"

    note = Inside("trial.json")
    """The state of the trial's process: that it rests, or why it failed."""
    group = Inside("placement_group.txt")
    """The placement group of its student workers."""

    def bring(self) -> None:
        """Bring what the trial has sent to its URL here, without weights; StorageError: it cannot be read."""
        if self.url is not None:
            Mirror.of(Remote.parse(self.url)).pull(_is_record)


def _is_record(name: str) -> bool:
    """Whether a search's driver reads a file of a trial."""
    return PurePosixPath(name).parts[0] not in ("student", "best") and is_followed(name)


def check_new_search(path: Path) -> None:
    """Check that a new search may use this folder; RunFolderError: it holds a search already, or other files."""
    path = path.expanduser()
    if SearchFolder(path).config.exists():
        raise RunFolderError(
            f"{path} holds a search already; continue it with `{command_line('tune', '--resume', path)}`, "
            "or choose another --output"
        )
    check_new_run(path)


def search_at(path: Path) -> SearchFolder | None:
    """The folder of a search; None: there is no search in it."""
    path = path.expanduser().resolve()
    folder = SearchFolder(path, url_of(path))
    return folder if folder.config.is_file() and folder.base.is_file() else None


def open_search(path: Path) -> SearchFolder:
    """Open the folder of an existing search; RunFolderError: there is no search in it."""
    folder = search_at(path)
    if folder is None:
        raise RunFolderError(f"{path} holds no search: it has no space.yaml with its base.yaml{began_in_vain(path)}")
    return folder


SEARCH = Kind("search", ("tune", "--resume"), check_new_search, open_search)


def holds_search(output: Path) -> bool:
    """Whether there is a search, or something else that `tune --resume` refuses, in a folder or at a URL."""
    if is_url(output):
        return Mirror.of(Remote.parse(output)).exists()
    return SearchFolder(output.expanduser()).config.is_file()
