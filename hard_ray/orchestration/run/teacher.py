"""The teacher of a run or a search: weights found or still to be trained, and the pool that serves it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hard_ray.config.run import RunConfig, asks_teacher
from hard_ray.config.teacher_training import teacher_training
from hard_ray.data.index import ImageIndex
from hard_ray.distillation.teacher import TeacherSpec
from hard_ray.distillation.teacher_cache import cached_teacher, is_there, teacher_spec
from hard_ray.files import replacing_folder
from hard_ray.orchestration.pool.server import PoolServer, start_pool
from hard_ray.orchestration.run.plan import RunPlan
from hard_ray.runs.folder import RunFolder


def prepare_teacher(
    config: RunConfig, index: ImageIndex, folder: RunFolder, say: Callable[[str], None], *, url: str | None = None
) -> tuple[TeacherSpec | None, bool]:
    """Say which teacher replicas load, and whether its weights exist already.

    The teacher is None where the configuration asks none. Weights that do not exist yet are trained into the part
    `teacher` of the folder; weights that another run trained by the same recipe come from the cache. Of a run at `url`
    they are in the folder in both cases, so that nodes that do not see this machine's cache find them at the URL.
    """
    teacher, trained = config.teacher, True
    if not teacher.has_weights and not asks_teacher(config):
        return None, True
    if not teacher.has_weights:
        cached = cached_teacher(config, index)
        own = folder.part("teacher")
        copied = url is not None and is_there(own.student) and not own.config.exists()
        trained = copied or (is_there(cached) and not own.config.exists())
        weights = own.student if copied else cached
        teacher = teacher.model_copy(update={"checkpoint": weights if trained else own.student})
        say(
            f"teacher {teacher.model}: trained before, from {weights}"
            if trained
            else f"teacher {teacher.model}: has no weights, so it is trained first"
        )
        if url is not None:
            if trained and not copied:
                with replacing_folder(own.student) as temporary:
                    _copy_files(cached, temporary)
            spec = teacher_spec(config, teacher, index, compiled=True)
            return replace(spec, weights_at=url), trained
    return teacher_spec(config, teacher, index, compiled=True), trained


def teacher_plan(config: RunConfig, folder: RunFolder) -> RunPlan:
    """The training of the teacher itself."""
    return RunPlan("teacher", "teacher", teacher_training(config), folder.part("teacher").path)


def keep_teacher(config: RunConfig, index: ImageIndex, folder: RunFolder) -> None:
    """Copy a teacher that was trained in this folder into the cache."""
    own, cached = folder.part("teacher"), cached_teacher(config, index)
    if not own.is_finished or is_there(cached):
        return
    with contextlib.suppress(OSError), replacing_folder(cached) as temporary:  # a cache is a convenience
        _copy_files(own.student, temporary)


def _copy_files(source: Path, to: Path) -> None:
    for path in source.iterdir():
        shutil.copy2(path, to)


def start_teacher_pool(
    config: RunConfig, spec: TeacherSpec | None, namespace: str, say: Callable[[str], None]
) -> PoolServer | None:
    """Start the pool's actors, unless the student workers hold the teacher themselves."""
    runtime = config.runtime
    if spec is None or runtime.teacher.placement == "colocated" or not asks_teacher(config):
        return None
    return start_pool(spec, runtime, namespace=namespace, say=say)
