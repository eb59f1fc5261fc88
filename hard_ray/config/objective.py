"""Objectives: the loss of the student and, for HARD, of the augmentor."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from hard_ray.config.base import Config, Fraction, Temperature, Weight

DisagreementMeasure = Literal["kl", "jensen_shannon", "relative"]


class HardObjective(Config):
    """HARD (arXiv 2305.14890): KD on clean and augmented images; the augmentor maximises disagreement."""

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
    """Weight of the student-teacher disagreement, which the augmentor maximises."""
    lambda_t: Weight = 0.3
    """Weight of the drift of the teacher's answer, which the augmentor minimises."""
    measure: DisagreementMeasure = "kl"
    """What the augmentor maximises. `kl`: the student's own loss, which is largest where the teacher is most certain:
    noise and blur are avoided. `jensen_shannon`: the symmetric divergence. `relative`: the loss as a share of what the
    teacher's answer says, its divergence from the uniform one; the drift is such a share then, too."""
    cap: PositiveFloat | None = None
    """Upper limit of the disagreement of an image in the augmentor's loss, in nats, or a share with `relative`; unset:
    no limit."""


class KdObjective(Config):
    """Hinton et al. 2015 (arXiv 1503.02531): (1-a) cross-entropy + a KD; augmented images add another a KD."""

    kind: Literal["kd"] = "kd"
    temperature: Temperature = 4.0
    """Softens both networks' outputs."""
    alpha: Fraction = 0.9
    """Weight a of the KD terms; the cross-entropy has weight 1-a."""
    label_augmented: bool = False
    """Control of arXiv 2012.02909: augmented images add a cross-entropy too, to mixed labels if they are mixed."""


class DkdObjective(Config):
    """Decoupled KD (Zhao et al. 2022, arXiv 2203.08679): target and non-target classes have separate weights."""

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
    """Epochs in which the KD terms grow from 0 to their weight."""


class DadObjective(Config):
    """DAD (arXiv 2311.01441): cross-entropy and KD on clean images, KD on generated or adversarial ones."""

    kind: Literal["dad"] = "dad"
    temperature: Temperature = 4.0
    """Softens both networks' outputs."""
    weighting: Literal["paper", "released"] = "paper"
    """`paper`: CE + 1/2 KD + 1/2 KD; `released`, as in the code: 3/4 CE + 1/4 KD on one mixed batch of both."""


class FunctionMatchingObjective(Config):
    """Patient and consistent teaching (Beyer et al. 2022, arXiv 2106.05237): only KD, on one view, without labels.

    The view is the augmented one if there is an augmentor.
    """

    kind: Literal["function_matching"] = "function_matching"
    temperature: Temperature = 1.0
    """Softens both networks' outputs."""


class CrossEntropyObjective(Config):
    """Labels only, without a teacher."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    jsd: Weight = 0.0
    """Weight of the Jensen-Shannon divergence between the answers on `data.augment.splits` views of an image: AugMix
    (arXiv 1912.02781), with weight 12 and 3 views in the paper. The cross-entropy is that of the first view alone. All
    views are one forward pass, so that BatchNorm sees them together. 0: no such term; a training without it sees one
    view, with all operations of `data.augment`."""


class EmbeddingObjective(Config):
    """The teacher's features instead of its classes: the student learns the direction of the teacher's embedding.

    The embedding is the pooled feature vector before the class head, which the teacher may lack. A linear layer
    projects the student's features to its dimension. The distance of two embeddings is D(a, b) = 1 - cos(a, b), from 0
    to 2. As in HARD, an augmentor maximises it on augmented images. `w_tokens` adds the distance of the features at
    each position, after Wei et al. 2022 (arXiv 2205.14141).
    """

    kind: Literal["embedding"] = "embedding"
    w_clean: Weight = 1.0
    """Weight of the distance to the teacher on clean images."""
    w_aug: Weight = 1.0
    """Weight of the distance to the teacher on augmented images."""
    lambda_s: Weight = 1.0
    """Weight of the student-teacher disagreement, which the augmentor maximises: their distance on augmented images."""
    lambda_t: Weight = 0.3
    """Weight of the drift of the teacher's embedding by the augmentation, which the augmentor minimises."""
    w_tokens: Weight = 0.0
    """Weight of the distance of tokens, the features of patches or of positions of the last map, which is added to
    1 - cos wherever the distance is used. The teacher's tokens are normalised, the student's are resized to its grid
    and projected by a linear layer; the distance is Smooth-L1 (beta 2), a mean over positions and channels. 0: the
    embedding alone. An answer of the teacher is larger with tokens; `--dry-run` says its bytes."""
    cap: Annotated[float, Field(gt=0.0, le=2.0)] | None = None
    """Upper limit of the disagreement of an image in the augmentor's loss, from 0 to 2; unset: no limit."""


ObjectiveConfig = Annotated[
    HardObjective
    | KdObjective
    | DkdObjective
    | DadObjective
    | FunctionMatchingObjective
    | EmbeddingObjective
    | CrossEntropyObjective,
    Field(discriminator="kind"),
]
