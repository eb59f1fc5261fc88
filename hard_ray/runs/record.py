"""All records in a run's folder as one object, for a finished or unfinished run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hard_ray.config.controller import Phase
from hard_ray.config.layers import read_layer
from hard_ray.config.loader import validate
from hard_ray.config.run import RunConfig
from hard_ray.errors import RunFolderError
from hard_ray.files import read_json
from hard_ray.redaction import without_password
from hard_ray.runs.folder import RunFolder, open_run
from hard_ray.runs.log import read_points
from hard_ray.runs.scores import logged_measure, measure_of

Point = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as its folder records it."""

    folder: RunFolder
    config: RunConfig
    classes: tuple[str, ...]
    points: tuple[Point, ...]
    """Every logged point, in order."""
    summary: dict[str, Any] | None
    """None: the run is not finished."""
    outcome: dict[str, Any]
    """How the training ended; empty: it has not."""
    evaluations: dict[str, dict[str, Any]]
    """Suites in detail by model, in the order of the table: teacher, controls, student."""
    split: str | None
    """The split that was evaluated."""
    later: dict[str, Any]
    """The `evaluation.json` of `hardray evaluate`; empty: it has not been called."""

    @property
    def name(self) -> str:
        """The run's name, else that of its folder."""
        return self.config.experiment.name or self.folder.path.name

    @property
    def measure(self) -> str:
        """What its networks are judged by, one of `hard_ray.runs.scores.MEASURES`."""
        measured = next(reversed(self.evaluations.values()), None)
        return measure_of(measured) if measured else logged_measure(self.of_kind("val"))

    @property
    def updates(self) -> int:
        """Number of updates that were logged so far."""
        return max((point["step"] for point in self.of_kind("train")), default=0)

    def of_kind(self, kind: str) -> list[Point]:
        """The logged points of a kind: train, val or switch."""
        return [point for point in self.points if point["kind"] == kind]

    def phases(self) -> list[tuple[Phase, int, int]]:
        """Phases in order, each with the number of updates before its start and at its end."""
        switches = self.of_kind("switch")
        starts = [0, *(point["from_update"] - 1 for point in switches)]
        ends = [*starts[1:], max(self.updates, starts[-1])]
        names = [Phase.STUDENT, *(Phase(point["to"]) for point in switches)]
        return list(zip(names, starts, ends, strict=True))

    def seconds(self) -> dict[str, float]:
        """Seconds of the updates by purpose, and their sum under `total`."""
        if "seconds" in self.outcome:
            return dict(self.outcome["seconds"])
        found = {"total": 0.0, "data_wait": 0.0, "teacher_wait": 0.0}
        before = 0
        for point in self.of_kind("train"):
            for key, name in (("total", "step"), ("data_wait", "data_wait"), ("teacher_wait", "teacher_wait")):
                found[key] += (point["step"] - before) * point.get(f"time/{name}", 0.0)
            before = point["step"]
        return found


def read_record(path: Path) -> RunRecord:
    """Read everything that a run's page and pictures need; RunFolderError: there is no run, or a file is damaged."""
    folder = open_run(path)
    config = validate([read_layer(folder.config, saved=True)], source=str(folder.config))
    try:
        evaluations, split = _evaluations(folder, config)
        return RunRecord(
            folder,
            config,
            classes=tuple(folder.classes.read_text(encoding="utf-8").splitlines()) if folder.classes.exists() else (),
            points=tuple(point for _, point in read_points(folder.metrics)) if folder.metrics.exists() else (),
            summary=read_json(folder.summary) or None,
            outcome=read_json(folder.outcome, {}),
            evaluations=evaluations,
            split=split,
            later=read_json(RunFolder(folder.later_evaluation).evaluation, {}),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path}: a file of the run is damaged ({error})") from None


def _evaluations(folder: RunFolder, config: RunConfig) -> tuple[dict[str, dict[str, Any]], str | None]:
    controls = {name: read_json(folder.part(f"controls/{name}").evaluation) for name in config.experiment.controls}
    own = read_json(folder.evaluation)
    every = {name: found for name, found in (*controls.items(), ("student", own)) if found}
    teacher = next((found["teacher"] for found in reversed(every.values()) if found["teacher"]), None)
    suites = {name: found["suites"] for name, found in every.items()}
    split = next((found["split"] for found in every.values()), None)
    return ({"teacher": teacher} if teacher else {}) | suites, split


def shareable(config: RunConfig) -> RunConfig:
    """The configuration without the tracking server's user and password, because pages are published."""
    uri = config.tracking.uri
    if uri is None:
        return config
    return config.model_copy(update={"tracking": config.tracking.model_copy(update={"uri": without_password(uri)})})
