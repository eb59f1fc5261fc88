"""What a run's folder says of the run, finished or not, as one object."""

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

Point = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as its folder has it."""

    folder: RunFolder
    config: RunConfig
    classes: tuple[str, ...]
    points: tuple[Point, ...]
    """Every logged point, in order."""
    summary: dict[str, Any] | None
    """None where the run is not finished."""
    outcome: dict[str, Any]
    """How the training ended; empty where it has not."""
    evaluations: dict[str, dict[str, Any]]
    """Suites in detail by model, in the order of the table: teacher, controls, student."""
    split: str | None
    """What the evaluations were made on."""
    later: dict[str, Any]
    """What `hardray evaluate` measured, as `evaluation.json` has it; empty where it did not."""

    @property
    def name(self) -> str:
        """The run's name, else its folder's."""
        return self.config.experiment.name or self.folder.path.name

    @property
    def updates(self) -> int:
        """Updates made so far, as far as they were logged."""
        return max((point["step"] for point in self.of_kind("train")), default=0)

    def of_kind(self, kind: str) -> list[Point]:
        """The logged points of a kind: train, val or switch."""
        return [point for point in self.points if point["kind"] == kind]

    def phases(self) -> list[tuple[Phase, int, int]]:
        """Who learned when: phase, updates before it began, and updates at its end."""
        switches = self.of_kind("switch")
        starts = [0, *(point["from_update"] - 1 for point in switches)]
        ends = [*starts[1:], max(self.updates, starts[-1])]
        names = [Phase.STUDENT, *(Phase(point["to"]) for point in switches)]
        return list(zip(names, starts, ends, strict=True))

    def seconds(self) -> dict[str, float]:
        """Where the time of the updates went, and their sum under `total`."""
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
    """Read all that the pages and pictures of a run need; nothing is written.

    Raises:
        RunFolderError: there is no run in the folder, or a file of it is damaged.
    """
    folder = open_run(path)
    config = validate([read_layer(folder.config)], source=str(folder.config))
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
    """What was measured at the end of each training that has ended."""
    controls = {name: read_json(folder.part(f"controls/{name}").evaluation) for name in config.experiment.controls}
    own = read_json(folder.evaluation)
    every = {name: found for name, found in (*controls.items(), ("student", own)) if found}
    teacher = next((found["teacher"] for found in reversed(every.values()) if found["teacher"]), None)
    suites = {name: found["suites"] for name, found in every.items()}
    split = next((found["split"] for found in every.values()), None)
    return ({"teacher": teacher} if teacher else {}) | suites, split


def shareable(config: RunConfig) -> RunConfig:
    """The configuration without the user and password of a tracking server: pages are passed on."""
    uri = config.tracking.uri
    if uri is None:
        return config
    return config.model_copy(update={"tracking": config.tracking.model_copy(update={"uri": without_password(uri)})})
