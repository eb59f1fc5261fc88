"""Settings of `score-augmentations`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from hard_ray.config.augmentor import (
    AugmentorConfig,
    DrawnAugmentor,
    LearnedAugmentor,
    PickAugmentor,
    SequenceAugmentor,
)
from hard_ray.config.base import Config, Seed
from hard_ray.config.data import DataConfig, DigitsData, refuse_mix, refuse_splits
from hard_ray.config.loader import from_options
from hard_ray.config.networks import TeacherConfig
from hard_ray.config.run import RunConfig
from hard_ray.config.safe_yaml import parse_yaml
from hard_ray.errors import ConfigError

CLEAN = "clean"
"""Name of the view that every augmentation starts from."""
PICK_NAME = "cutmix_pick"
"""Name of `pick` with its default settings, here and in arXiv 2012.02909."""
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
    "random_policy",
    PICK_NAME,
)

Settings = dict[str, Any]
Per = Literal["batch", "image"]


def _scorable(raw: Any) -> Any:
    """Refuse augmentors that a teacher alone cannot score, before any other problem is reported."""
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
    if isinstance(raw, Mapping):
        yield raw
        parts = raw.get("augmentors")
        for part in [raw.get("augmentor"), *(parts if isinstance(parts, list | tuple) else ())]:
            yield from _blocks(part)


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.+-]+$")]
Scorable = Annotated[AugmentorConfig, BeforeValidator(_scorable)]


class ScoreRun(Config):
    """One comparison of augmentations: every setting that the scores depend on."""

    data: DataConfig = DigitsData()
    teacher: TeacherConfig = TeacherConfig()
    seed: Seed = 0
    """Seed of the order of images, their views and augmentation."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Images per batch; a group is 5 batches and their augmented views, in the paper of 64 images each."""
    groups: Annotated[int, Field(ge=3)] = 80
    """Number of groups, over which the standard deviation is taken."""
    augmentors: dict[Name, Scorable]
    """Augmentors to score, by name."""

    @model_validator(mode="after")
    def _is_of_single_images(self) -> ScoreRun:
        refuse_splits(self.data)
        refuse_mix(self.data)
        return self


def score_run(
    config: RunConfig, augmentors: Mapping[str, Settings], *, groups: int = 80, batch_size: int = 64, per: Per = "batch"
) -> ScoreRun:
    """The settings of `score-augmentations`, by parts of a run; `per` is for augmentors whose settings leave it out."""
    values: dict[str, Any] = {
        "data": config.data.model_dump(mode="json"),
        "teacher": config.teacher.model_dump(mode="json"),
        "seed": config.seed,
        "groups": groups,
        "batch_size": batch_size,
        "augmentors": dict(augmentors),
    }
    run = from_options(ScoreRun, values)
    if CLEAN in run.augmentors:
        problem = f"augmentors.{CLEAN}: is the name of the view that all augmentations start from; choose another"
        raise ConfigError([problem], "the options")
    return run.model_copy(update={"augmentors": {name: _drawn(kind, per) for name, kind in run.augmentors.items()}})


def _drawn(config: AugmentorConfig, per: Per) -> Any:
    if isinstance(config, PickAugmentor):
        return config.model_copy(update={"augmentor": _drawn(config.augmentor, per)})
    if isinstance(config, SequenceAugmentor):
        return config.model_copy(update={"augmentors": tuple(_drawn(part, per) for part in config.augmentors)})
    if isinstance(config, DrawnAugmentor) and "per" not in config.model_fields_set:
        return config.model_copy(update={"per": per})
    return config


def read_augmentors(texts: Iterable[str]) -> dict[str, Settings]:
    """Read settings by name from comma-separated `KIND` and `NAME=YAML` texts; ConfigError: a mistake in them."""
    found: dict[str, Settings] = {}
    problems = []
    for item in (item.strip() for text in texts for item in _items(text)):
        name, settings = _one(item)
        if name in found:
            problems.append(f"duplicate name {name!r}; rename one of them: NAME={{kind: ...}}")
        elif not isinstance(settings, dict):
            problems.append(f"{item!r}: want KIND or NAME=YAML, such as strong={{kind: rand_augment, magnitude: 15}}")
        else:
            found[name] = settings
    if problems:
        raise ConfigError(problems, "--augmentors")
    return found


def _one(item: str) -> tuple[str, Any]:
    name, equals, yaml = (part.strip() for part in item.partition("="))
    if equals:
        return name, parse_yaml(yaml, f"the augmentor {name!r}")
    if name in ("pick", PICK_NAME):
        return PICK_NAME, {"kind": "pick"}
    return name, {"kind": name}


def _items(text: str) -> Iterator[str]:
    """The parts of a text between commas outside brackets."""
    depth, start = 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "{[") - (letter in "}]")
        if letter == "," and depth == 0:
            yield text[start:place]
            start = place + 1
    yield text[start:]
