"""The paths in the folder of a search and of its trials."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hard_ray.errors import RunFolderError, command_line
from hard_ray.runs.folder import Inside, RunFolder, began_in_vain, check_new_run

PLOTS = ("history.png", "importance.png", "parallel.png", "pareto.png")


@dataclass(frozen=True, slots=True)
class SearchFolder(RunFolder):
    """The paths of one search; a follower sends them to MLflow as it does those of a run."""

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

    def trial(self, name: str) -> TrialFolder:
        """The run folder of a trial."""
        return TrialFolder(self.path / "trials" / name)


@dataclass(frozen=True, slots=True)
class TrialFolder(RunFolder):
    """The paths of a trial's run."""

    note = Inside("trial.json")
    """The state of the trial's process: that it rests, or why it failed."""
    group = Inside("placement_group.txt")
    """The placement group of its student workers."""


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
    folder = SearchFolder(path.expanduser().resolve())
    return folder if folder.config.is_file() and folder.base.is_file() else None


def open_search(path: Path) -> SearchFolder:
    """Open the folder of an existing search; RunFolderError: there is no search in it."""
    folder = search_at(path)
    if folder is None:
        raise RunFolderError(f"{path} holds no search: it has no space.yaml with its base.yaml{began_in_vain(path)}")
    return folder
