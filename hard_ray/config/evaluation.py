"""Settings of `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, PositiveInt

from hard_ray.config.base import Config
from hard_ray.config.loader import from_options
from hard_ray.config.validation import PGD, EvaluationAttack, Severity, Suite
from hard_ray.errors import ConfigError, suggestion

Published = Literal["imagenet-c", "imagenet-a", "imagenet-r", "imagenet-sketch", "imagenet-v2", "stylized-imagenet"]
"""Sets that come as folders of their own."""

CHANGES: tuple[str, ...] = get_args(Suite)
PUBLISHED: tuple[str, ...] = get_args(Published)


class EvaluationConfig(Config):
    """Suites, and the images that they are measured on."""

    suites: tuple[Suite, ...] = ("clean", "shifts", "rotations", "corruptions")
    """Suites of the data's own images."""
    published: dict[Published, Path] = Field(default_factory=dict)
    """Folders of published sets, by name."""
    split: Literal["train", "val", "test"] | None = None
    """Split to measure; unset: the test split, or the validation split if there is none."""
    images: PositiveInt | None = 2000
    """Number of changed images, chosen from the split by `data.split_seed`; unset: all. `clean` always takes all."""
    severities: Annotated[tuple[Severity, ...], Field(min_length=1)] = (1, 2, 3, 4, 5)
    """Severities of each corruption, from 1 to 5."""
    attack: EvaluationAttack = PGD
    """Attack of the suite `adversarial`."""
    batch_size: PositiveInt = 256
    """Images per batch."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all suites and published sets, in order."""
        return (*dict.fromkeys(self.suites), *self.published)


def evaluation_settings(options: dict[str, Any]) -> EvaluationConfig:
    """Settings from the options of `evaluate`; ConfigError: every mistake in them."""
    return from_options(EvaluationConfig, options)


def read_suites(given: Sequence[str]) -> dict[str, Any]:
    """Read the words `NAME` and `NAME=FOLDER`; ConfigError: an unknown suite, or a published set without a folder."""
    suites: list[str] = []
    published: dict[str, str] = {}
    problems: list[str] = []
    for word in given:
        name, separator, folder = word.partition("=")
        if name in PUBLISHED and folder:
            published[name] = folder
        elif name in PUBLISHED:
            problems.append(f"{name} is a published set; give its folder: {name}=FOLDER")
        elif name in CHANGES and not separator:
            suites.append(name)
        elif name in CHANGES:
            problems.append(f"{name} is made of the data's own images and takes no folder, got {folder!r}")
        else:
            problems.append(f"{name!r} is not a suite; {suggestion(name, [*CHANGES, *PUBLISHED])}")
    if problems:
        raise ConfigError(problems, "--suite")
    return {"suites": suites, "published": published}
