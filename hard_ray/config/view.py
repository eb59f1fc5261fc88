"""Settings of the stronger training view, in timm's words, and of damage at random."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, PositiveInt, field_validator, model_validator

from hard_ray.config.base import Config, Fraction

_WHOLE, _NUMBER, _SWITCH = r"\d+", r"\d+(\.\d*)?", "[01]"
_POLICIES = ("original", "originalr", "v0", "v0r", "3a")
_SECTIONS = {
    "rand": {
        "m": _WHOLE,
        "n": r"[1-9]\d*",
        "p": _NUMBER,
        "mstd": _NUMBER,
        "mmax": r"[1-9]\d*",
        "inc": _SWITCH,
        "t": "weights|3aw?",
    },
    "augmix": {"m": _WHOLE, "w": r"[1-9]\d*", "d": r"[1-9]\d*", "a": _NUMBER, "b": _SWITCH, "mstd": _NUMBER},
    **{policy: {"mstd": _NUMBER} for policy in _POLICIES},
}
"""The sections that timm reads after each first word of `auto_augment`, and their values."""

DegradeKind = Literal["noise", "blur", "contrast", "fog", "pixelate", "affine"]


class DegradeConfig(Config):
    """Damage at random, for robust teachers: noise, blur, less contrast, fog, pixelation, affine maps.

    Of the 15 common corruptions it contains near relatives of nine: gaussian_noise, shot_noise, impulse_noise,
    defocus_blur, motion_blur, zoom_blur, fog, contrast and pixelate. A network that was trained with it has met these,
    so that its figures on them are not those of unseen corruptions. It contains no glass_blur, snow, frost,
    brightness, elastic_transform or jpeg_compression.
    """

    prob: Fraction = 0.8
    """Probability that an image is damaged."""
    severity: tuple[Fraction, Fraction] = (0.1, 1.0)
    """Range of the strength, which is drawn uniformly for each operation: 0 is the identity, 1 about severity 3 of the
    common corruptions."""
    kinds: Annotated[tuple[DegradeKind, ...], Field(min_length=1)] = get_args(DegradeKind)
    """Kinds of damage; those of an image differ, and are applied in random order."""
    most: PositiveInt = 2
    """Most operations on an image; their number is drawn uniformly from 1 on."""

    @model_validator(mode="after")
    def _can_be_drawn(self) -> DegradeConfig:
        low, high = self.severity
        if low > high:
            raise ValueError(f"severity must be two rising numbers from 0 to 1, got [{low:g}, {high:g}]")
        if len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"kinds {list(self.kinds)} names a kind twice; name each once")
        if self.most > len(self.kinds):
            raise ValueError(
                f"most {self.most} is more than the {len(self.kinds)} of kinds, which are applied once at most; "
                f"use most={len(self.kinds)}, or name more kinds"
            )
        return self


class AugmentConfig(Config):
    """What is done to a training image after its crop and its flip, by timm's own code and in timm's order.

    Order: `vflip`, `auto_augment`, `color_jitter`, `grayscale`, `gaussian_blur`, `degrade`, random erasing. All draws
    are a function of the seed, the epoch and the image. Areas that an operation uncovers are filled with ImageNet's
    mean colour, and operations resample by `data.interpolation`; timm's `train.py` without `--train-interpolation`
    draws bilinear or bicubic for each operation instead. Grey images go through as grey RGB images: operations on
    colour alone then do nothing.
    """

    vflip: Fraction = 0.0
    """Probability of a vertical flip."""
    auto_augment: str | None = None
    """A policy as timm's `--aa` names it: RandAugment (`rand-m9-mstd0.5-inc1`), AugMix (`augmix-m5-w4-d2`), AutoAugment
    (`original`, `originalr`, `v0`, `v0r`) or 3-Augment (`3a`)."""
    color_jitter: float | tuple[float, ...] | None = None
    """Range of brightness, contrast and saturation: one number for all, or three; a fourth is the range of the hue.
    timm's own default is 0.4, and it leaves the jitter out beside any policy but `3a`; here that is an error."""
    color_jitter_prob: Fraction | None = None
    """Probability of the jitter; unset: always."""
    grayscale: Fraction = 0.0
    """Probability that an image loses its colours."""
    gaussian_blur: Fraction = 0.0
    """Probability of a Gaussian blur of 23x23 pixels with a standard deviation of 0.1 to 2."""
    degrade: DegradeConfig | None = None
    """Noise, blur and other damage; not a part of timm."""
    reprob: Fraction = 0.0
    """Probability of random erasing (arXiv 1708.04896)."""
    remode: Literal["const", "rand", "pixel"] = "pixel"
    """Pixels of an erased box: ImageNet's mean colour, one normal colour, or a normal colour for each pixel. timm
    erases after its normalisation; here the same values, for ImageNet's mean and standard deviation, are rounded to 8
    bits and clipped."""
    recount: PositiveInt = 1
    """Most boxes that are erased; their number is drawn uniformly from 1 on, and they share the area of one."""
    splits: int = 0
    """Views of each crop, as timm's `--aug-splits`: the first keeps crop and flips alone, each of the others draws all
    operations anew (timm's `--resplit`). For AugMix with the Jensen-Shannon loss, `objective.jsd`; 0: one view."""

    @field_validator("auto_augment")
    @classmethod
    def _is_a_policy_of_timm(cls, value: str | None) -> str | None:
        if value is not None:
            _check_policy(value)
        return value

    @field_validator("color_jitter", mode="before")
    @classmethod
    def _is_a_jitter(cls, value: Any) -> Any:
        ranges = value if isinstance(value, list | tuple) else () if value is None else (value,) * 3
        are_numbers = all(isinstance(part, int | float) and part >= 0 for part in ranges)
        if value is not None and not (are_numbers and len(ranges) in (3, 4) and max(ranges[3:], default=0) <= 0.5):
            raise ValueError(
                f"got {value!r}; want a number, or brightness, contrast and saturation, each 0 or more, and perhaps "
                "the hue, at most 0.5, as [0.4, 0.4, 0.4, 0.1]"
            )
        return value

    @field_validator("splits")
    @classmethod
    def _are_views(cls, value: int) -> int:
        if value != 0 and not 2 <= value <= 16:
            raise ValueError(f"got {value}; want 0 for one view, or 2 to 16 views, such as 3")
        return value

    @model_validator(mode="after")
    def _blocks_agree(self) -> AugmentConfig:
        if self.color_jitter is not None and self.auto_augment is not None and "3a" not in self.auto_augment:
            raise ValueError(
                f"color_jitter beside auto_augment {self.auto_augment}: timm leaves the jitter out beside a policy "
                "other than 3a; remove one of them"
            )
        if self.color_jitter is None and self.color_jitter_prob is not None:
            raise ValueError("color_jitter_prob has no color_jitter to apply; give color_jitter, such as 0.4")
        if self.splits and not (self.changes_pixels or self.reprob > 0):
            raise ValueError(
                f"splits {self.splits} would be equal views: no operation is set; give auto_augment, such as "
                "augmix-m3-w3, or use splits=0"
            )
        return self

    @property
    def changes_pixels(self) -> bool:
        """Whether any operation but flips and erasing is set."""
        drawn = self.grayscale > 0 or self.gaussian_blur > 0
        return drawn or any(value is not None for value in (self.auto_augment, self.color_jitter, self.degrade))


def describe_augment(config: AugmentConfig) -> str:
    """Every setting that is not its default, on one line: `auto_augment v0, reprob 0.25, degrade (most 1)`."""
    return _line(config.model_dump(mode="json", exclude_defaults=True)) or "no operation"


def _line(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}{_shown(value)}" for key, value in values.items())


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f" ({_line(value)})" if value else ""
    return f" [{', '.join(map(str, value))}]" if isinstance(value, list) else f" {value}"


def _check_policy(text: str) -> None:
    """Raise ValueError unless timm reads every section of a policy; it passes over some that it does not know."""
    first, *sections = text.split("-")
    if first not in _SECTIONS:
        raise ValueError(
            f"got {text!r}; want a policy of timm that begins with {', '.join(_SECTIONS)}, such as "
            "rand-m9-mstd0.5-inc1 or augmix-m5-w4-d2"
        )
    known, seen = _SECTIONS[first], set()
    for section in sections:
        key = next((key for key, value in known.items() if re.fullmatch(key + f"({value})", section)), None)
        if key is None or key in seen:
            problem = "is no section of it" if key is None else "comes twice"
            raise ValueError(f"{text!r}: {section!r} {problem}; want {first} with {_wanted(known)}, joined by '-'")
        seen.add(key)


def _wanted(known: dict[str, str]) -> str:
    values = {_NUMBER: "NUMBER", _SWITCH: "0 or 1", known.get("t", ""): "weights, 3a or 3aw"}
    return ", ".join(f"{key}{values.get(value, 'INTEGER')}" for key, value in known.items())
