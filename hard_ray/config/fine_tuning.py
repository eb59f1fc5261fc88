"""How a teacher is trained where nobody says how: from nothing, or gently from weights that it has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hard_ray.config.loader import Layer, load_config
from hard_ray.config.run import RunConfig

FINE_TUNING: Layer = {
    "opt": "adamw",
    "lr": 1e-4,
    "weight_decay": 0.05,
    "sched": "cosine",
    "epochs": 10.0,
    "warmup_epochs": 1.0,
    "warmup_lr": 1e-6,
    "smoothing": 0.0,
}
"""The keys of `teacher.recipe` for a teacher with weights.

AdamW, its weight decay, the cosine and the warm-up are those that timm's pretrained models are fine-tuned with; the
learning rate is a twentieth of the recipe's from nothing. No label smoothing, unlike timm: a teacher that learned
from smoothed labels teaches worse (Müller et al. 2019, arXiv:1906.02629, section 5).
"""


def load_teacher_config(
    files: Sequence[Path] = (),
    *,
    preset: str | None = None,
    overrides: Sequence[str] = (),
    defaults: Layer | None = None,
) -> RunConfig:
    """Merge and validate, as `load_config`; a teacher with weights has FINE_TUNING for its recipe.

    It lies above the preset, whose recipe is one from nothing, and below the files.

    Raises:
        ConfigError: every mistake found, in one message.
    """
    config = load_config(files, preset=preset, overrides=overrides, defaults=defaults)
    if not config.teacher.has_weights:
        return config
    beneath = {"teacher": {"recipe": FINE_TUNING}}
    return load_config(files, preset=preset, overrides=overrides, beneath=beneath, defaults=defaults)
