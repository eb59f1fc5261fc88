"""Pilots: short trainings of students that follow each other in one session of Ray Train, on one teacher pool."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hard_ray.config.run import RunConfig
from hard_ray.data.index import ImageIndex
from hard_ray.distillation.teacher import TeacherSpec
from hard_ray.errors import HardrayError, StoppedError
from hard_ray.files import make_folder
from hard_ray.orchestration.cluster.demand import DataShare
from hard_ray.orchestration.pool.client import PoolAddress
from hard_ray.orchestration.progress import SAY_EVERY_S
from hard_ray.orchestration.run.follow import follow
from hard_ray.orchestration.run.plan import RunPlan, WorkerPlan, write_configs
from hard_ray.preparation.recommend_plan import Costs
from hard_ray.runs.folder import RunFolder
from hard_ray.runs.log import LogTail, read_points
from hard_ray.runs.place import Place
from hard_ray.runs.record import Point

Say = Callable[[str], None]


class PilotProgress:
    """Says every few seconds how far the present pilot is."""

    def __init__(self, say: Say, updates: int | None = None) -> None:
        self._say = say
        self._of = "" if updates is None else f" of {updates:,}"
        self._tails: dict[Path, LogTail] = {}
        self._said = time.monotonic()

    def say(self, text: str) -> None:
        """Print a sentence."""
        self._say(text)

    def watch(self, plans: tuple[RunPlan, ...]) -> None:
        """Read the logs, and say a line if one is due."""
        for plan in plans:
            tail = self._tails.setdefault(plan.folder, LogTail())
            points = list(tail.read(RunFolder(plan.folder).metrics))
            tail.advance()
            if points and time.monotonic() - self._said > SAY_EVERY_S:
                self._said = time.monotonic()
                self._say(f"{plan.folder.parent.name} {plan.name}: update {points[-1]['student_step']:,}{self._of}")

    def close(self) -> None:
        """Do nothing: no file stays open."""


@dataclass(frozen=True, slots=True)
class Trainer:
    """What all pilots share."""

    base: RunConfig
    """The configuration, resolved for the cluster."""
    index: ImageIndex
    teacher: TeacherSpec
    pool: PoolAddress | None
    """None: every student worker holds the teacher itself."""
    identity: str
    data: DataShare
    place: Place
    """The recommendation's."""
    say: Say
    again: str
    """The command that continues the recommendation."""

    def forget(self, folder: RunFolder) -> None:
        """Remove a rung that is made anew."""
        if self.place.mirror is not None:
            inside = folder.path.relative_to(self.place.mirror.folder.resolve()).as_posix()
            self.place.mirror.remove(lambda name: name.startswith(f"{inside}/"))
        shutil.rmtree(folder.path, ignore_errors=True)

    def train(self, folder: RunFolder, configs: Mapping[str, RunConfig], updates: int) -> dict[str, str]:
        """Train the pilots that are not finished; return by name the reason of each that diverged.

        Raises HardrayError if one fails otherwise, StoppedError if asked to stop.
        """
        diverged: dict[str, str] = {}
        place, whole = self.place, RunFolder(self.place.folder.expanduser().resolve())
        make_folder(folder.path)
        while left := {name: config for name, config in configs.items() if name not in diverged}:
            runs = tuple(RunPlan(name, "main", config, folder.part(name).path) for name, config in left.items())
            if all(RunFolder(run.folder).is_finished for run in runs):
                break
            write_configs(folder, self.index, runs)
            whole.stop_request.unlink(missing_ok=True)
            place.send()
            plan = WorkerPlan(
                runs,
                self.teacher,
                self.pool,
                self.data,
                whole.stop_request,
                teacher_identity=self.identity,
                url=place.url,
                owner=place.owner,
            )
            progress = PilotProgress(self.say, updates)
            try:
                follow(plan, self.base, self.index, whole, progress, place.mirror, again=self.again)
            except StoppedError:
                raise
            except HardrayError as error:
                name = next(run.name for run in runs if not RunFolder(run.folder).is_finished)
                if not folder.part(name).diverged.exists():
                    raise
                self.say(f"{name} has no finite loss, and is left out: {error}")
                diverged[name] = str(error)
        return diverged


def update_seconds(folder: RunFolder) -> float:
    """Seconds of a student update, with the augmentor updates between, over the second half of the logged points.

    The first half has what a start does once.
    """
    points = [point for _, point in read_points(folder.metrics) if point["kind"] == "train"]
    first, later = points[(len(points) - 1) // 2], points[(len(points) - 1) // 2 + 1 :]
    if not later:
        return float(first["time/step"])
    spent = sum(_spent(point, before) for before, point in zip([first, *later], later, strict=False))
    return spent / max(1.0, float(later[-1]["student_step"] - first["student_step"]))


def _spent(point: Point, before: Point) -> float:
    return float(point["time/step"]) * float(point["step"] - before["step"])


def costs_of(folder: RunFolder, names: Sequence[str], *, began: float, ended: float, measured_s: float) -> Costs:
    """What a rung that began and ended at these times says of the costs of the next; `measured_s` for each pilot."""
    update_s = {name: update_seconds(folder.part(name)) for name in names}
    first = next(point for _, point in read_points(folder.part(names[0]).metrics) if point["kind"] == "train")
    session_s = max(0.0, first["time"] - float(first["time/step"]) * first["step"] - began)
    updates = {name: _student_steps(folder.part(name)) for name in names}
    training = sum(updates[name] * update_s[name] for name in names)
    beside = max(0.0, ended - began - session_s - training) / len(names)
    return Costs(session_s, beside + measured_s, update_s)


def _student_steps(folder: RunFolder) -> int:
    return max(int(point["student_step"]) for _, point in read_points(folder.metrics))
