"""A run's teacher as its replicas are told of it, and the cache of teachers that were trained for want of weights."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from hard_ray.config.networks import TeacherConfig
from hard_ray.config.run import RunConfig
from hard_ray.data.index import ImageIndex
from hard_ray.orchestration.plan import teacher_training
from hard_ray.orchestration.worker import image_spec
from hard_ray.teacher import TeacherSpec


def teacher_spec(config: RunConfig, index: ImageIndex, teacher: TeacherConfig) -> TeacherSpec:
    """What each replica becomes; `teacher` has its weights."""
    runtime = config.runtime
    return TeacherSpec(
        teacher,
        image_spec(config, index),
        dtype=runtime.teacher.dtype or "float32",
        channels_last=bool(runtime.channels_last),
        threads=runtime.teacher.threads,
    )


def cached_teacher(config: RunConfig, index: ImageIndex) -> Path:
    """Where a teacher of this recipe is kept: a hash of all that decides its weights."""
    training = teacher_training(config)
    keys = {"data", "student", "optim", "seed"}
    recipe = training.model_dump(mode="json", include=keys) | {
        "amp_dtype": config.runtime.amp_dtype,
        "num_workers": config.runtime.num_workers,
        "data_fingerprint": index.fingerprint(),
    }
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder() / "teachers" / digest


def is_cached(folder: Path) -> bool:
    """Whether a teacher is there."""
    return (folder / "config.json").is_file()


def cache_folder() -> Path:
    """Where trained teachers are kept: HARDRAY_CACHE, else the user's cache folder."""
    base = os.environ.get("HARDRAY_CACHE")
    if base:
        return Path(base).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "hardray"
