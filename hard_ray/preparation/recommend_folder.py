"""The folder of a recommendation: its settings, its record, its pilots, and the files that a user reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hard_ray.config.layers import read_layer
from hard_ray.config.loader import read_begun, validate
from hard_ray.config.recommend import RecommendRun
from hard_ray.config.run import RunConfig
from hard_ray.config.safe_yaml import dump_yaml
from hard_ray.errors import RunFolderError, readable
from hard_ray.files import beginning, is_vacant, read_json, write_text
from hard_ray.preparation.folders import OutputFolder, ScoreFolder
from hard_ray.runs.folder import Inside, RunFolder, began_in_vain
from hard_ray.runs.place import Kind, occupied
from hard_ray.storage.address import Remote, is_url
from hard_ray.storage.mirror import Mirror, shown_path

RECORD_HOLDS: dict[str, type] = {"rungs": dict, "skipped": list, "spent_s": float}
"""Keys of a record with their types, which a damaged one lacks."""


class RecommendFolder(OutputFolder):
    """The paths of one recommendation."""

    __slots__ = ()

    base = Inside("base.yaml")
    """The configuration that it is for."""
    settings = Inside("settings.yaml")
    """Budget and suites; written last, which makes the folder that of a recommendation."""
    record = Inside("recommendation.json")
    """All numbers so far, and the conclusion."""
    report = Inside("report.html")
    """The page."""
    recommended = Inside("recommended.yaml")
    """The recommended configuration; `hardray distill -c` takes it."""
    teacher_answers = Inside("teacher.npz")
    """The teacher's answers on the measured images."""

    @property
    def scores(self) -> ScoreFolder:
        """The scores of augmentations."""
        return ScoreFolder(self.path / "scores")

    def rung(self, name: str) -> RunFolder:
        """The folder of pilots that are trained in one session."""
        return RunFolder(self.path / "pilots" / name)

    def pilot(self, rung: str, name: str) -> RunFolder:
        """The run of a pilot."""
        return self.rung(rung).part(name)

    def answers(self, rung: str, name: str) -> Path:
        """The answers of a pilot on the measured images."""
        return self.pilot(rung, name).path / "answers.npz"

    @property
    def is_begun(self) -> bool:
        """Whether the folder holds a recommendation."""
        return self.settings.is_file() and self.base.is_file()

    def begin(self, config: RunConfig, settings: RecommendRun) -> None:
        """Write what the recommendation is of; RunFolderError: the folder cannot be written."""
        with beginning(self.path):
            write_text(self.base, dump_yaml(config))
            write_text(self.settings, dump_yaml(settings))

    def begun(self) -> tuple[RunConfig, RecommendRun]:
        """What the recommendation is of; HardrayError: the files are damaged or of another version."""
        config = validate([read_layer(self.base, saved=True)], source=str(self.base))
        return config, read_begun(RecommendRun, self.settings)

    def read_record(self) -> dict[str, Any]:
        """The numbers so far; RunFolderError: the file is damaged."""
        empty = {key: kind() for key, kind in RECORD_HOLDS.items()}
        try:
            found: dict[str, Any] = read_json(self.record, empty)
            is_whole = all(isinstance(found[key], kind) for key, kind in RECORD_HOLDS.items())
        except (ValueError, TypeError, KeyError) as error:
            raise RunFolderError(f"{self.record} cannot be read ({readable(error)}); put a copy of it back") from None
        if not is_whole:
            raise RunFolderError(f"{self.record} holds something else; put a copy of it back")
        return found


def check_new_recommendation(path: Path) -> None:
    """Check that a new recommendation may use this folder; RunFolderError: it holds one already, or other files."""
    folder = RecommendFolder(path.expanduser().resolve())
    if folder.is_begun:
        command = RECOMMENDATION.command(path)
        raise RunFolderError(f"{path} holds a recommendation; continue it with `{command}`, or choose another --output")
    if not is_vacant(folder.path):
        raise occupied(path, "recommendation")


def open_recommendation(path: Path) -> RecommendFolder:
    """The folder of an existing recommendation; RunFolderError: there is none in it."""
    folder = RecommendFolder(path.expanduser().resolve())
    if not folder.is_begun:
        where, why = shown_path(folder.path), began_in_vain(folder.path)
        raise RunFolderError(f"{where} holds no recommendation: it has no settings.yaml with its base.yaml{why}")
    return folder


def begun_at(output: Path) -> tuple[RunConfig, RecommendRun] | None:
    """What the recommendation in a folder or at a URL is of; None: there is none, and nothing else at the URL.

    RunFolderError: the URL holds something else.
    """
    if not is_url(output):
        folder = RecommendFolder(output.expanduser().resolve())
        return folder.begun() if folder.is_begun else None
    mirror = Mirror.of(Remote.parse(output))
    if not mirror.exists():
        return None
    folder = RecommendFolder(mirror.folder)
    mirror.pull(lambda name: name in (folder.base.name, folder.settings.name))
    if not folder.is_begun:
        raise occupied(mirror.folder, "recommendation")
    return folder.begun()


RECOMMENDATION = Kind("recommendation", ("recommend", "--resume"), check_new_recommendation, open_recommendation)
