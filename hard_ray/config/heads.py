"""Settings of `fit-head` and `probe`: heads on the features of a frozen tower."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from hard_ray.config.base import Config, Seed
from hard_ray.config.loader import from_options
from hard_ray.errors import ConfigError

Strengths = Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]


class ProbeHead(Config):
    """Multinomial logistic regression on features of labelled images."""

    kind: Literal["probe"] = "probe"
    c: Strengths = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
    """Values of scikit-learn's `C`, the inverse strength of the L2 penalty; the validation split chooses one."""
    images: PositiveInt | None = None
    """Most images of a split, spread over it; unset: all."""


class PrototypesHead(Config):
    """Centres of spherical k-means on features of images, whose labels are not used."""

    kind: Literal["prototypes"] = "prototypes"
    count: Annotated[int, Field(ge=2)] = 1024
    """Number of prototypes, which are the teacher's outputs."""
    seed: Seed = 0
    """Seed of the first centres."""
    entropy: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """Mean entropy of the answers on training images, as a share of the largest, log(count); it decides the
    temperature."""
    images: PositiveInt | None = None
    """Most images of the training split, spread over it; unset: all."""


class ZeroShotHead(Config):
    """Features of class names by the text tower of CLIP."""

    kind: Literal["zero-shot"] = "zero-shot"
    classes: str
    """Text file with a class name on each line."""
    prompts: Annotated[tuple[str, ...], Field(min_length=1)] = ("a photo of a {}.",)
    """Texts with `{}` for the class name; a class is the mean of all."""

    @field_validator("prompts")
    @classmethod
    def _have_a_place(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        for prompt in prompts:
            if prompt.count("{}") != 1:
                raise ValueError(f"got {prompt!r}; want one {{}} where the class name goes, as in 'a photo of a {{}}.'")
        return prompts


HeadConfig = ProbeHead | PrototypesHead | ZeroShotHead
KINDS: dict[str, type[ProbeHead] | type[PrototypesHead] | type[ZeroShotHead]] = {
    "probe": ProbeHead,
    "prototypes": PrototypesHead,
    "zero-shot": ZeroShotHead,
}


def head_settings(options: dict[str, Any]) -> HeadConfig:
    """Settings from the options of `fit-head`; raises ConfigError, which lists every mistake."""
    kind = options.get("kind")
    if kind not in KINDS:
        raise ConfigError([f"kind: got {kind!r}; want one of {', '.join(KINDS)}"], "the options")
    if kind == "zero-shot" and not options.get("classes"):
        raise ConfigError(["classes: is required; give --classes a text file with a name on each line"], "the options")
    return from_options(KINDS[kind], options)


class NeighbourConfig(Config):
    """Settings of `probe`."""

    k: PositiveInt = 20
    """Neighbours that vote."""
    temperature: PositiveFloat = 0.07
    """Temperature of the votes' weights."""
    c: Strengths = ProbeHead().c
    """As of a probe."""
    images: PositiveInt | None = None
    """As of a probe."""
