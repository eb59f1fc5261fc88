"""What the student minimises and, for HARD, what the augmentor maximises."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from hard_ray.config.base import Config, Fraction, Temperature, Weight


class HardObjective(Config):
    """HARD (arXiv 2305.14890): KD on clean and on augmented images; the augmentor seeks disagreement."""

    kind: Literal["hard"] = "hard"
    temperature: Temperature = 4.0
    """Softens both networks' outputs."""
    w_clean: Weight = 1.0
    """Weight of the KD loss on clean images."""
    w_aug: Weight = 1.0
    """Weight of the KD loss on augmented images."""
    w_ce: Weight = 0.0
    """Weight of the cross-entropy to the labels, on clean images."""
    lambda_s: Weight = 1.0
    """How strongly the augmentor seeks student-teacher disagreement."""
    lambda_t: Weight = 0.3
    """How strongly the augmentor avoids drift of the teacher's answer."""
    cap: PositiveFloat | None = None
    """Disagreement of one image beyond which the augmentor gains nothing, in nats; unset: none."""


class KdObjective(Config):
    """Hinton et al. 2015 (arXiv 1503.02531): (1-a) cross-entropy + a KD; augmented images add a KD."""

    kind: Literal["kd"] = "kd"
    temperature: Temperature = 4.0
    """Softens both networks' outputs."""
    alpha: Fraction = 0.9
    """Weight of the KD terms; the cross-entropy has the rest."""
    label_augmented: bool = False
    """The control of arXiv 2012.02909: augmented images add a cross-entropy too, to their mixed labels if mixed."""


class DkdObjective(Config):
    """Decoupled KD (Zhao et al. 2022, arXiv 2203.08679): target and non-target classes weighted apart."""

    kind: Literal["dkd"] = "dkd"
    temperature: Temperature = 4.0
    """Softens both networks' outputs."""
    alpha: NonNegativeFloat = 1.0
    """Weight of the target-class term."""
    beta: NonNegativeFloat = 8.0
    """Weight of the non-target-class term."""
    w_ce: Weight = 1.0
    """Weight of the cross-entropy to the labels."""
    warmup_epochs: NonNegativeFloat = 20.0
    """Epochs over which the KD terms grow from 0 to their weight."""


class DadObjective(Config):
    """DAD (arXiv 2311.01441): cross-entropy and KD on clean images, KD on generated or adversarial ones."""

    kind: Literal["dad"] = "dad"
    temperature: Temperature = 4.0
    """Softens both networks' outputs."""
    weighting: Literal["paper", "released"] = "paper"
    """`paper`: CE + 1/2 KD + 1/2 KD; `released`: 3/4 CE + 1/4 KD on one mixed batch of both, as its code does."""


class FunctionMatchingObjective(Config):
    """Patient and consistent teaching (Beyer et al. 2022, arXiv 2106.05237): KD alone, no labels, on one view.

    It is the augmented one where there is an augmentor.
    """

    kind: Literal["function_matching"] = "function_matching"
    temperature: Temperature = 1.0
    """Softens both networks' outputs."""


class CrossEntropyObjective(Config):
    """Labels only: no teacher is asked."""

    kind: Literal["cross_entropy"] = "cross_entropy"


ObjectiveConfig = Annotated[
    HardObjective | KdObjective | DkdObjective | DadObjective | FunctionMatchingObjective | CrossEntropyObjective,
    Field(discriminator="kind"),
]
