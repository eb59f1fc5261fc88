"""Distributions of a search: one key names the distribution, its value holds the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Discriminator, Field, PositiveFloat, Tag, model_validator

from hard_ray.config.base import Config

Scalar = bool | int | float | str | None
Value = Scalar

BETWEEN = 0.381966
"""Position of `between` in a range: 2 minus the golden ratio, which settings rarely have by chance."""


class _Range(Config):
    @property
    def name(self) -> str:
        """The key that names the distribution."""
        return next(iter(type(self).model_fields))

    @property
    def numbers(self) -> tuple[Any, ...]:
        """The numbers under the key."""
        return tuple(getattr(self, self.name))

    def ends(self) -> tuple[Value, ...]:
        """The values that a configuration must accept."""
        return self.numbers[:2]

    def between(self) -> Value:
        """A value that is neither end, and unlikely to be a setting's default."""
        low, high = self.numbers[:2]
        return float(low + BETWEEN * (high - low))

    def __str__(self) -> str:
        return f"{self.name} [{', '.join(_short(number) for number in self.numbers)}]"

    @model_validator(mode="after")
    def _has_room(self) -> _Range:
        low, high = self.numbers[:2]
        if low >= high:
            raise ValueError(f"want a lower and a higher end, got {self}; for fixed values use choice: [...]")
        if self.name.startswith("log") and low <= 0:
            raise ValueError(f"a logarithm needs ends above 0, got {self}; use {self.name.removeprefix('log')}")
        return self


class Uniform(_Range):
    """A number between two ends, all equally likely."""

    uniform: tuple[float, float]
    """Lower and upper end."""


class LogUniform(_Range):
    """A number between two ends, all orders of magnitude equally likely."""

    loguniform: tuple[float, float]
    """Lower and upper end, above 0."""


class QUniform(_Range):
    """A multiple of a step between two ends, all equally likely."""

    quniform: tuple[float, float, PositiveFloat]
    """Lower end, upper end, step; both ends are multiples of the step."""

    def between(self) -> Value:
        """The multiple after the lower end."""
        low, _, step = self.quniform
        return low + step

    @model_validator(mode="after")
    def _ends_are_multiples(self) -> QUniform:
        low, high, step = self.quniform
        if any(abs(end / step - round(end / step)) > 1e-9 for end in (low, high)):
            raise ValueError(f"want ends that are multiples of the step {_short(step)}, got {self}")
        return self


class RandInt(_Range):
    """A whole number from one end to the other, both included, all equally likely."""

    randint: tuple[int, int]
    """Lower and upper end, both included."""

    def between(self) -> Value:
        """The number after the lower end."""
        return self.randint[0] + 1


class LogRandInt(_Range):
    """A whole number from one end to the other, both included, all orders of magnitude equally likely."""

    lograndint: tuple[int, int]
    """Lower and upper end, above 0, both included."""

    def between(self) -> Value:
        """The number after the lower end."""
        return self.lograndint[0] + 1


class Choice(Config):
    """One of a few values."""

    choice: Annotated[tuple[Scalar, ...], Field(min_length=1)]
    """The values: numbers, words, true, false or null."""

    @property
    def name(self) -> str:
        """The key that names the distribution."""
        return "choice"

    def ends(self) -> tuple[Value, ...]:
        """Every value."""
        return self.choice

    def between(self) -> Value:
        """The first value; nothing lies between values."""
        return self.choice[0]

    def __str__(self) -> str:
        return f"choice [{', '.join(_short(value) for value in self.choice)}]"

    @model_validator(mode="after")
    def _differ(self) -> Choice:
        if len({(type(value), value) for value in self.choice}) < len(self.choice):
            raise ValueError(f"duplicate value in {self}")
        return self


KINDS: dict[str, type[_Range] | type[Choice]] = {
    "uniform": Uniform,
    "loguniform": LogUniform,
    "quniform": QUniform,
    "choice": Choice,
    "randint": RandInt,
    "lograndint": LogRandInt,
}


def _kind_of(raw: Any) -> str | None:
    if isinstance(raw, _Range | Choice):
        return raw.name
    if isinstance(raw, Mapping) and len(raw) == 1:
        return str(next(iter(raw)))
    return None


Distribution = Annotated[
    Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("loguniform")]
    | Annotated[QUniform, Tag("quniform")]
    | Annotated[Choice, Tag("choice")]
    | Annotated[RandInt, Tag("randint")]
    | Annotated[LogRandInt, Tag("lograndint")],
    Discriminator(_kind_of),
]


def _short(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
