"""Settings of `recommend`, and the configurations of the students that it compares."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, PositiveInt

from hard_ray.config.augmentor import AugmentorConfig, IdentityAugmentor
from hard_ray.config.base import Config, Seconds
from hard_ray.config.data import has_labels
from hard_ray.config.layers import Layer
from hard_ray.config.loader import from_options, validate
from hard_ray.config.objective import HardObjective, KdObjective
from hard_ray.config.run import RunConfig, as_control, asks_teacher, fitting_data, without_extras
from hard_ray.config.scoring import DEFAULT_AUGMENTORS, ScoreRun, read_augmentors, score_run
from hard_ray.config.space import with_values
from hard_ray.config.validation import Suite, ValidationConfig
from hard_ray.errors import ConfigError

LEARNED: tuple[str, ...] = ("affine", "policy")
"""Kinds of learned augmentors that get a pilot with their default settings, or with those of the configuration."""
DRAWN = 3
"""Augmentors that draw at random and get a pilot: those with the lowest T. stddev."""
STRENGTHS = (0.5, 0.75)
"""Strengths of the best augmentor that are tried beside its own."""
TEMPERATURES = (0.5, 2.0)
"""Factors of the temperature that are tried beside 1."""

KD, LABELS = "kd", "labels_only"
CONFIGURED = "configured"
"""Name of the configuration's own augmentor, unless it is one of `LEARNED`."""
NEVER = 1e6
"""Epochs between evaluations of a pilot, which is measured at its end alone."""
POINTS = 20
"""Logged points of a pilot, from which the time of its updates is read."""
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class RecommendRun(Config):
    """The budget of a recommendation, and what its students are measured on."""

    budget_s: Seconds
    """Seconds for scores, pilots and measurements; the training of a teacher without weights comes before."""
    suites: Annotated[tuple[Suite, ...], Field(min_length=1)] = ("clean", "shifts", "rotations", "corruptions")
    """Suites of the validation split; the mean over them of top-1 or, without labels, of agreement decides."""
    images: PositiveInt = 2000
    """Most images of the validation split that students are measured on."""


def read_budget(text: str) -> float:
    """Seconds of a time such as `90s`, `20m` or `1.5h`; ConfigError: it is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    if found is None or not float(found[1]):
        raise ConfigError([f"want a time such as 90s, 20m or 1.5h, got {text!r}"], "--budget")
    return float(found[1]) * SECONDS[found[2]]


def recommend_settings(
    *, budget_s: float, suites: Sequence[str] | None = None, images: int | None = None
) -> RecommendRun:
    """Settings from the options of `recommend`; None: the default. ConfigError: every mistake in them."""
    given: Layer = {"budget_s": budget_s, "suites": suites, "images": images}
    return from_options(RecommendRun, {key: value for key, value in given.items() if value is not None})


def plain_kd(config: RunConfig) -> RunConfig:
    """Plain KD, the control that every other student is compared with: `objective.kind=kd` keeps its settings."""
    made = as_control(config, KD)
    return made.model_copy(update={"objective": config.objective}) if config.objective.kind == KD else made


def references(config: RunConfig) -> dict[str, RunConfig]:
    """The students that show what a second view is worth, and what the teacher is."""
    labels = {LABELS: as_control(config, LABELS)} if has_labels(config.data) else {}
    return {KD: plain_kd(config), **labels}


def drawn(config: RunConfig, augmentor: AugmentorConfig) -> RunConfig:
    """Plain KD with the second view of an augmentor that learns nothing."""
    return plain_kd(config).model_copy(update={"augmentor": augmentor})


def fixed_candidates(config: RunConfig) -> dict[str, RunConfig]:
    """The candidates that need no score: learned augmentors, and the configuration's own one.

    Raises ConfigError if a learned augmentor does not go with the rest of the configuration.
    """
    own, found = without_extras(config), {kind: learned(config, kind) for kind in LEARNED}
    if not isinstance(own.augmentor, IdentityAugmentor) and own.augmentor.kind not in found:
        found[CONFIGURED] = own
    return found


def learned(config: RunConfig, kind: str) -> RunConfig:
    """The configuration with HARD's objective and a learned augmentor; ConfigError: they do not go together."""
    own = without_extras(config)
    if own.augmentor.kind == kind:
        return own
    objective = config.objective
    if not isinstance(objective, HardObjective):
        objective = HardObjective(temperature=plain_temperature(config))
    layer: Layer = {"objective": objective.model_dump(mode="json"), "augmentor": {"kind": kind}}
    layer["data"] = fitting_data(own, objective).model_dump(mode="json")
    return validate([own.model_dump(mode="json"), layer], source=f"the pilot of augmentor.kind={kind}")


def plain_temperature(config: RunConfig) -> float:
    """The temperature of plain KD."""
    objective = plain_kd(config).objective
    assert isinstance(objective, KdObjective)
    return objective.temperature


def scored(config: RunConfig, *, groups: int = 3, batch_size: int = 2) -> ScoreRun:
    """The augmentors that T. stddev ranks, drawn for every image: their second views are made of unmixed images."""
    data = plain_kd(config).data
    augment = None if data.augment is None else data.augment.model_copy(update={"splits": 0})
    single = config.model_copy(update={"data": data.model_copy(update={"mix": None, "augment": augment})})
    return score_run(single, read_augmentors(DEFAULT_AUGMENTORS), groups=groups, batch_size=batch_size, per="image")


def variants(config: RunConfig) -> dict[str, dict[str, Any]]:
    """Settings by dotted key to try on a student, by their name: other strengths, other temperatures."""
    tried: dict[str, Any] = {}
    if not isinstance(config.augmentor, IdentityAugmentor):
        own = config.augmentor.strength
        tried |= {f"augmentor.strength={value * own:g}": {"augmentor.strength": value * own} for value in STRENGTHS}
    if (temperature := getattr(config.objective, "temperature", None)) is not None:
        values = [factor * temperature for factor in TEMPERATURES]
        tried |= {f"objective.temperature={value:g}": {"objective.temperature": value} for value in values}
    return tried


def changed(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """A configuration with other values by dotted key."""
    return with_values(config, values, "the pilots")


def as_pilot(config: RunConfig, *, updates: int, total: int, seed: int) -> RunConfig:
    """The configuration of a short training: the same schedule, compressed from `total` student updates to `updates`.

    It is evaluated at its end alone, keeps one checkpoint, and is not sent to MLflow.
    """
    log_every = max(1, updates // POINTS)
    optim = config.optim.model_copy(update={"stretch": config.optim.stretch * updates / total})
    validation = ValidationConfig(every=NEVER, suites=("clean",), batch_size=config.validation.batch_size)
    return config.model_copy(
        update={
            "optim": optim,
            "validation": validation,
            "seed": seed,
            "checkpoints": config.checkpoints.model_copy(update={"keep": 1}),
            "tracking": config.tracking.model_copy(
                update={"enabled": False, "gallery_images": 0, "log_every": log_every}
            ),
        }
    )


def with_teacher(config: RunConfig) -> RunConfig:
    """The configuration, or plain KD in the place of one that asks no teacher; without controls."""
    own = without_extras(config)
    return own if asks_teacher(own) else plain_kd(own)
