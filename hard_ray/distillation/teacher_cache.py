"""The teacher of a configuration: the cache of trained teachers, and the spec of replicas."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from hard_ray.config.base import Config
from hard_ray.config.networks import TeacherConfig
from hard_ray.config.run import RunConfig, asks_tokens, embeds, training_data
from hard_ray.config.teacher_training import teacher_training
from hard_ray.data.index import ImageIndex
from hard_ray.distillation.assembly import batch_sizes
from hard_ray.distillation.teacher import TeacherSpec
from hard_ray.errors import TeacherError
from hard_ray.files import cache_folder
from hard_ray.networks.network import image_spec

_ADDED = {
    "data": ("augment", "mix", "unlabelled", "unlabelled_share"),
    "optim": (
        "weight_decay_exclude",
        "opt_betas",
        "opt_eps",
        "opt_kwargs",
        "layer_decay",
        "layer_decay_min_scale",
        "layer_decay_no_opt_scale",
        "param_groups",
        "warmup_prefix",
        "lr_cycle_limit",
        "lr_cycle_mul",
        "lr_cycle_decay",
        "lr_k_decay",
        "accumulate",
        "clip_mode",
        "model_ema_warmup",
        "model_ema_warmup_gamma",
        "model_ema_warmup_power",
    ),
    "student": ("grad_checkpointing", "freeze_bn", "freeze"),
}
"""Keys that are left out of the hash while they have their defaults, so that teachers trained before them are found."""


def trained_teacher(config: RunConfig, index: ImageIndex) -> TeacherConfig:
    """Find the teacher with its weights, for a command that does not train one.

    `config` is resolved for the machine, with as many workers as the run that trained the teacher. Raises TeacherError
    if it has no weights, and none was trained by its recipe before.
    """
    teacher = config.teacher
    if teacher.has_weights:
        return teacher
    cached = cached_teacher(config, index)
    if not is_there(cached):
        raise TeacherError(
            f"teacher.model {teacher.model} has no weights, and none was trained by this teacher.recipe on this data "
            "yet; name some with teacher.checkpoint or teacher.pretrained, or run `hardray distill` once with the same "
            "data, teacher and runtime.num_workers: it keeps the teacher that it trains"
        )
    return teacher.model_copy(update={"checkpoint": cached})


def cached_teacher(config: RunConfig, index: ImageIndex) -> Path:
    """Folder of a teacher trained by this recipe, named by a hash of everything that decides its weights."""
    training = teacher_training(config)
    training = training.model_copy(update={"data": training_data(training)})
    keys = {"data", "student", "optim", "seed"}
    without = {block: _at_default(getattr(training, block), keys) for block, keys in _ADDED.items()}
    without["student"].add("new_head")  # has no effect without initial weights
    runtime = config.runtime
    kernels = {"compile": runtime.compile_mode, "deterministic": runtime.deterministic or None, "tf32": runtime.tf32}
    recipe = training.model_dump(mode="json", include=keys, exclude=without) | {
        "amp_dtype": runtime.amp_dtype,
        "num_workers": runtime.num_workers,
        "data_fingerprint": index.fingerprint(),
        **{key: value for key, value in kernels.items() if value is not None},
    }
    if config.teacher.recipe.jsd:
        recipe["jsd"] = config.teacher.recipe.jsd
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder() / "teachers" / digest


def _at_default(block: Config, keys: Iterable[str]) -> set[str]:
    """The keys of a block that have their defaults."""
    fields = type(block).model_fields
    return {key for key in keys if getattr(block, key) == fields[key].get_default(call_default_factory=True)}


def is_there(cached: Path) -> bool:
    """Whether a folder of the cache holds a teacher."""
    return (cached / "config.json").is_file()


def teacher_spec(
    config: RunConfig, teacher: TeacherConfig, index: ImageIndex, *, compiled: bool = False
) -> TeacherSpec:
    """Describe the teacher, whose weights may not exist yet, to the pool; `config` is resolved for the machine.

    `compiled`: as `runtime.teacher.compile` says, for the batches of a training; otherwise never.
    """
    runtime = config.runtime
    mode = runtime.teacher.compile_mode if compiled else None
    return TeacherSpec(
        teacher,
        image_spec(config.data, index.classes),
        dtype=runtime.teacher.dtype or "float32",
        channels_last=bool(runtime.channels_last),
        threads=runtime.teacher.threads,
        compile_mode=mode,
        sizes=batch_sizes(config) if mode is not None else (),
        deterministic=runtime.deterministic,
        tf32=runtime.tf32,
        embeds=embeds(config),
        with_tokens=asks_tokens(config),
    )
