"""Mixing of the main view: mixup and CutMix before the teacher is asked, in timm's words."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, model_validator

from hard_ray.config.base import Config, Fraction


class MixConfig(Config):
    """Mixup and CutMix of the training images themselves, as timm's Mixup draws them.

    The mixture is rounded to pixels before anything else sees it, so that the teacher labels what the student sees. A
    second view is made of the mixed images, and their labels are mixed for every cross-entropy. Where a loss or
    `train/top1` needs one class for an image, it is that of the larger share.
    """

    mixup: NonNegativeFloat = 0.0
    """Mixup (arXiv 1710.09412) with shares from Beta(mixup, mixup), timm's `--mixup`; 0: no mixup."""
    cutmix: NonNegativeFloat = 0.0
    """CutMix (arXiv 1905.04899) with shares from Beta(cutmix, cutmix), timm's `--cutmix`; 0: no CutMix."""
    cutmix_minmax: Annotated[tuple[Fraction, Fraction], Field(min_length=2, max_length=2)] | None = None
    """Smallest and largest side of CutMix's box, as shares of the image's, each side drawn evenly between them; given,
    it turns CutMix on, and `cutmix` has no effect on the box."""
    prob: Fraction = 1.0
    """Probability that a batch, or an image with `mode: elem`, is mixed."""
    switch_prob: Fraction = 0.5
    """Probability of CutMix, where both are on."""
    mode: Literal["batch", "elem"] = "batch"
    """One draw per batch of a worker, or one per image."""

    @property
    def has_cutmix(self) -> bool:
        """Whether CutMix is on."""
        return self.cutmix > 0 or self.cutmix_minmax is not None

    @model_validator(mode="after")
    def _mixes(self) -> MixConfig:
        if self.mixup == 0 and not self.has_cutmix:
            raise ValueError(
                "mixup 0 and cutmix 0 without cutmix_minmax mix nothing; give mixup=0.8 or cutmix=1.0, or set the "
                "block itself to null"
            )
        if self.cutmix_minmax is not None and not self.cutmix_minmax[0] < self.cutmix_minmax[1]:
            low, high = self.cutmix_minmax
            raise ValueError(f"cutmix_minmax must be two rising shares, as [0.2, 0.8]; got [{low}, {high}]")
        return self


def describe_mix(config: MixConfig) -> str:
    """Every setting that is not its default, on one line: `mixup 0.8, cutmix 1.0`."""
    return ", ".join(f"{key} {value}" for key, value in config.model_dump(mode="json", exclude_defaults=True).items())
