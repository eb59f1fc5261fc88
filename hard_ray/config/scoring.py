"""Which augmentations are scored, on what, by which teacher."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, ValidationError

from hard_ray.config.augmentor import (
    AugmentorConfig,
    DrawnAugmentor,
    LearnedAugmentor,
    PickAugmentor,
    SequenceAugmentor,
)
from hard_ray.config.base import Config, Seed
from hard_ray.config.data import DataConfig, DigitsData
from hard_ray.config.networks import TeacherConfig
from hard_ray.config.problems import describe
from hard_ray.config.run import RunConfig
from hard_ray.config.safe_yaml import parse_yaml
from hard_ray.errors import ConfigError

CLEAN = "clean"
"""The name of the view that every augmentation starts from."""
PICK_NAME = "cutmix_pick"
"""What `pick` with its default settings is called, here and in arXiv 2012.02909."""
DEFAULT_AUGMENTORS = (
    "identity",
    "flip",
    "crop_flip",
    "cutout",
    "mixup",
    "cutmix",
    "auto_augment",
    "rand_augment",
    "trivial_augment",
    PICK_NAME,
)

Settings = dict[str, Any]
Per = Literal["batch", "image"]


def _scorable(raw: Any) -> Any:
    """Refuse what a teacher alone cannot score, before what else may be wrong with it."""
    learned = {kind.model_fields["kind"].default for kind in LearnedAugmentor.__subclasses__()}
    for block in _blocks(raw):
        kind = block.get("kind")
        if kind in learned:
            raise ValueError(
                f"kind {kind} learns from a student while it trains, so there is nothing to score beforehand; "
                "a run of it logs augmentor/t_stddev"
            )
        if kind == "generated":
            raise ValueError(
                "kind generated takes images that were made beforehand for each image; score what they were made "
                "with, such as kind adversarial"
            )
        if kind == "pick" and block.get("score", "teacher_entropy") in ("kl", "student_entropy"):
            raise ValueError(
                f"score {block['score']} of kind pick needs the student's answers, and there is no student; "
                "use score: teacher_entropy"
            )
    return raw


def _blocks(raw: Any) -> Iterator[Mapping[str, Any]]:
    """An augmentor's block, and those of its parts."""
    if isinstance(raw, Mapping):
        yield raw
        parts = raw.get("augmentors")
        for part in [raw.get("augmentor"), *(parts if isinstance(parts, list | tuple) else ())]:
            yield from _blocks(part)


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.+-]+$")]
Scorable = Annotated[AugmentorConfig, BeforeValidator(_scorable)]


class ScoreRun(Config):
    """One comparison of augmentations: all that their scores depend on."""

    data: DataConfig = DigitsData()
    teacher: TeacherConfig = TeacherConfig()
    seed: Seed = 0
    """Decides order, views and augmentation."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Images per batch; the paper's groups are 5 batches of 64 and as many augmented images."""
    groups: Annotated[int, Field(ge=3)] = 80
    """Groups that the standard deviation is taken over."""
    augmentors: dict[Name, Scorable]
    """What is scored, by the names that the scores go by."""


def score_run(
    config: RunConfig,
    augmentors: Mapping[str, Settings],
    *,
    groups: int = 80,
    batch_size: int = 64,
    per: Per = "batch",
) -> ScoreRun:
    """The comparison that `data`, `teacher` and `seed` of a run's configuration and the options describe.

    Args:
        config: its other blocks play no part.
        augmentors: settings by name; see `read_augmentors`.
        groups: as in `ScoreRun`.
        batch_size: as in `ScoreRun`.
        per: one draw for a batch or one for each image, where the settings do not say.

    Raises:
        ConfigError: every mistake in the options, in one message.
    """
    values: dict[str, Any] = {
        "data": config.data.model_dump(mode="json"),
        "teacher": config.teacher.model_dump(mode="json"),
        "seed": config.seed,
        "groups": groups,
        "batch_size": batch_size,
        "augmentors": dict(augmentors),
    }
    try:
        run = ScoreRun.model_validate(values)
    except ValidationError as error:
        problems = [describe(problem, values) for problem in error.errors(include_url=False)]
        raise ConfigError(problems, "the options") from None
    if CLEAN in run.augmentors:
        problem = f"augmentors.{CLEAN}: is the name of the view that all start from; choose another"
        raise ConfigError([problem], "the options")
    return run.model_copy(update={"augmentors": {name: _drawn(kind, per) for name, kind in run.augmentors.items()}})


def _drawn(config: AugmentorConfig, per: Per) -> Any:
    """The same augmentor; what draws at random and was not told otherwise, draws once `per` batch or image."""
    if isinstance(config, PickAugmentor):
        return config.model_copy(update={"augmentor": _drawn(config.augmentor, per)})
    if isinstance(config, SequenceAugmentor):
        return config.model_copy(update={"augmentors": tuple(_drawn(part, per) for part in config.augmentors)})
    if isinstance(config, DrawnAugmentor) and "per" not in config.model_fields_set:
        return config.model_copy(update={"per": per})
    return config


def read_augmentors(texts: Iterable[str]) -> dict[str, Settings]:
    """Settings by name, from `KIND` and `NAME=YAML` texts that commas separate.

    Raises:
        ConfigError: a name stands twice, or its settings are no block.
    """
    found: dict[str, Settings] = {}
    problems = []
    for item in (item.strip() for text in texts for item in _items(text)):
        name, settings = _one(item)
        if name in found:
            problems.append(f"{name!r} stands twice; call one of them otherwise: NAME={{kind: ...}}")
        elif not isinstance(settings, dict):
            problems.append(f"{item!r}: want KIND or NAME=YAML, such as strong={{kind: rand_augment, magnitude: 15}}")
        else:
            found[name] = settings
    if problems:
        raise ConfigError(problems, "--augmentors")
    return found


def _one(item: str) -> tuple[str, Any]:
    """The name of one of the texts, and its settings."""
    name, equals, yaml = (part.strip() for part in item.partition("="))
    if equals:
        return name, parse_yaml(yaml, f"the augmentor {name!r}")
    if name in ("pick", PICK_NAME):
        return PICK_NAME, {"kind": "pick"}
    return name, {"kind": name}


def _items(text: str) -> Iterator[str]:
    """The parts of a text between the commas that stand outside of brackets."""
    depth, start = 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "{[") - (letter in "}]")
        if letter == "," and depth == 0:
            yield text[start:place]
            start = place + 1
    yield text[start:]
