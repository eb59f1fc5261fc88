"""Objectives of the student, and objectives whose gradient the teacher returns.

Teacher objectives are small frozen dataclasses that are sent to the teacher and evaluated there. A loss of both
networks' outputs needs one round trip: the teacher holds the student's logits constant and returns the gradient
along its own path; the worker then holds the teacher's logits constant, evaluates the same objective and adds the
gradient along the student's path.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import Any, Protocol, assert_never

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hard_ray.augmentors.labels import Labels, MixedLabels, one_hot
from hard_ray.config.objective import (
    CrossEntropyObjective,
    DadObjective,
    DisagreementMeasure,
    DkdObjective,
    EmbeddingObjective,
    FunctionMatchingObjective,
    HardObjective,
    KdObjective,
    ObjectiveConfig,
)
from hard_ray.distillation.embedding import COSINE, embedding_drift, embedding_to_keep
from hard_ray.maths import losses
from hard_ray.maths.tokens import EmbeddingDistance

Context = Mapping[str, Tensor]


class TeacherObjective(Protocol):
    """A loss per image, in nats, of the teacher's logits and of tensors in the request."""

    def __call__(self, teacher: Float[Tensor, "batch classes"], context: Context) -> Float[Tensor, " batch"]:
        """`context` holds one row per image under each name."""


class AugmentorLoss(TeacherObjective, Protocol):
    """The loss of an augmentor, and the parts of it that are logged and that the controller decides by."""

    def disagreement(self, teacher: Float[Tensor, "batch classes"], context: Context) -> Float[Tensor, " batch"]:
        """L_st: how far the student is from the teacher on augmented images, without a cap."""

    def drift(self, teacher: Float[Tensor, "batch classes"], context: Context) -> Float[Tensor, " batch"]:
        """L_tt: how far the augmentation moves the teacher's answer."""

    def to_keep(
        self, clean: Float[Tensor, "batch classes"], sources: Float[Tensor, "views batch"] | None
    ) -> dict[str, Tensor]:
        """The context of the drift, from the teacher's answers on clean images; `sources` are as in `Views`."""


@dataclass(frozen=True, slots=True)
class LabelCrossEntropy:
    """Cross-entropy of the teacher to labels, which DAD's attack maximises. Context: that of `label_context`."""

    def __call__(self, teacher: Tensor, context: Context) -> Tensor:
        """One value per image, in nats."""
        found = losses.cross_entropy(teacher, context["labels"])
        if "share" not in context:
            return found
        share, other = context["share"].to(found.dtype), losses.cross_entropy(teacher, context["second_labels"])
        return share * found + (1.0 - share) * other


def label_context(labels: Labels) -> dict[str, Tensor]:
    """The context of `LabelCrossEntropy`: `labels`; if mixed, also `second_labels` and the `share` of the first."""
    if isinstance(labels, MixedLabels):
        return {"labels": labels.first, "second_labels": labels.second, "share": labels.share}
    return {"labels": labels}


@dataclass(frozen=True, slots=True)
class Drift:
    r"""Change of the teacher's answer: D_T(t(x) || t(x~)).

    Context: `clean`, the logits t(x); or, for an image mixed from several, `anchor`: the mixture of the teacher's
    probabilities on them, at this temperature.
    """

    temperature: float

    def __call__(self, teacher: Tensor, context: Context) -> Tensor:
        """One value per image, in nats."""
        if "anchor" in context:
            return losses.divergence_from(context["anchor"], teacher, temperature=self.temperature)
        return losses.divergence(context["clean"], teacher, temperature=self.temperature)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Distance of the student from the teacher: D_T(t(x~) || s(x~)). Context: `student`, the logits s(x~)."""

    temperature: float

    def __call__(self, teacher: Tensor, context: Context) -> Tensor:
        """One value per image, in nats."""
        return losses.divergence(teacher, context["student"], temperature=self.temperature)


LEAST_INFORMATION = 0.05
"""Added to what an answer says before it divides, in nats at temperature 1: a uniform answer says nothing."""


@dataclass(frozen=True, slots=True)
class AugmentorObjective:
    r"""The loss of HARD's augmentor.

    .. math:: -\lambda_s \min(D_\tau(t(\tilde x) \| s(\tilde x)), cap) + \lambda_t D_\tau(t(x) \| t(\tilde x))

    With the measure `jensen_shannon`, the first divergence is the symmetric one. With `relative`, both are shares of
    what the teacher's answer says: :math:`D_\tau(t(\tilde x) \| s(\tilde x)) / (D_\tau(t(\tilde x) \| u) + c)` and
    :math:`D_\tau(t(x) \| t(\tilde x)) / (D_\tau(t(x) \| u) + c)` with the uniform answer u.

    Context: `student`, the logits s(x~), and the context of `Drift`. The disagreement of an image beyond the cap has
    no gradient along either path.

    Source: HARD, arXiv:2305.14890, section 3. The cap, the other measures and the defaults are ours.
    """

    temperature: float
    lambda_s: float
    lambda_t: float
    cap: float | None = None
    measure: DisagreementMeasure = "kl"

    def __call__(self, teacher: Tensor, context: Context) -> Tensor:
        """One value per image, in nats or in shares."""
        disagreement, drift = self._measured(teacher, context), self.drift(teacher, context)
        if self.measure == "relative":
            uniform, least = torch.zeros_like(teacher), LEAST_INFORMATION * self.temperature**2
            disagreement = disagreement / (losses.divergence(teacher, uniform, temperature=self.temperature) + least)
            drift = drift / (Drift(self.temperature)(uniform, context) + least)
        if self.cap is not None:
            disagreement = disagreement.clamp(max=self.cap)
        return self.lambda_t * drift - self.lambda_s * disagreement

    def _measured(self, teacher: Tensor, context: Context) -> Tensor:
        if self.measure == "jensen_shannon":
            return losses.symmetric_divergence(teacher, context["student"], temperature=self.temperature)
        return self.disagreement(teacher, context)

    def disagreement(self, teacher: Tensor, context: Context) -> Tensor:
        """The student's own loss, whatever the measure; one value per image, in nats."""
        return Disagreement(self.temperature)(teacher, context)

    def drift(self, teacher: Tensor, context: Context) -> Tensor:
        """The loss `Drift`, one value per image, in nats."""
        return Drift(self.temperature)(teacher, context)

    def to_keep(self, clean: Tensor, sources: Tensor | None) -> dict[str, Tensor]:
        """The context of `Drift`, see `answer_to_keep`."""
        return answer_to_keep(clean, sources, self.temperature)


def in_parts(views: Tensor, count: int, *, images: int) -> list[Tensor]:
    """Divide one or more views of each image into `count` parts, so that the views of an image stay together.

    `views` holds the first view of all images, then the second of all, and so on.
    """
    if len(views) == images:
        return list(views.tensor_split(count))
    by_view = [view.tensor_split(count) for view in views.split(images)]
    return [torch.cat(parts) for parts in zip(*by_view, strict=True)]


@dataclass(frozen=True, slots=True)
class Views:
    """Logits of both networks on one batch, or a part of one. A view that is not learned from is None."""

    labels: Labels
    student: Float[Tensor, "batch classes"] | None
    teacher: Float[Tensor, "batch classes"] | None = None
    student_augmented: Float[Tensor, "views classes"] | None = None
    teacher_augmented: Float[Tensor, "views classes"] | None = None
    rows: Int[Tensor, " views"] | None = None
    """The image of the batch that each augmented one was made from; None: in the batch's order."""
    sources: Float[Tensor, "views batch"] | None = None
    """The share of each image of the batch in each augmented one; None: all of its own."""
    whole: Views | None = None
    """The whole batch, if these are a part of it; `rows` and `sources` refer to its images."""

    def parts(self, count: int) -> list[Views]:
        """Divide the images into `count` parts, each with all of its views; sizes differ by one image at most."""
        if count == 1:
            return [self]
        tensors = {
            field.name: value for field in fields(self) if isinstance(value := getattr(self, field.name), Tensor)
        }
        images = len(self.classes())
        pieces: dict[str, Sequence[Any]] = {
            name: in_parts(tensor, count, images=images) for name, tensor in tensors.items()
        }
        if isinstance(self.labels, MixedLabels):
            pieces["labels"] = self.labels.tensor_split(count)
        return [
            replace(self, whole=self, **{name: piece[number] for name, piece in pieces.items()})
            for number in range(count)
        ]

    @property
    def batch(self) -> Views:
        """The whole batch."""
        return self if self.whole is None else self.whole

    def classes(self) -> Int[Tensor, " batch"]:
        """One class for each image: of a mixed one, that of the larger share."""
        return self.labels.larger() if isinstance(self.labels, MixedLabels) else self.labels

    def augmented_classes(self) -> Int[Tensor, " views"]:
        """The class of the image that each augmented one was made from."""
        return self.classes() if self.rows is None else self.batch.classes()[self.rows]

    def targets(self, like: Float[Tensor, "batch classes"]) -> Int[Tensor, " batch"] | Float[Tensor, "batch classes"]:
        """The labels, or the shares of the classes if the batch is mixed, for logits like `like`."""
        return self.labels.shares(like.shape[1]).to(like) if isinstance(self.labels, MixedLabels) else self.labels

    def augmented_targets(
        self, like: Float[Tensor, "views classes"]
    ) -> Int[Tensor, " views"] | Float[Tensor, "views classes"]:
        """The labels of the augmented images, or the shares of the classes if they or the batch are mixed."""
        if self.sources is None and self.rows is None:
            return self.targets(like)
        targets = self.batch.targets(like)
        if self.sources is None:
            return targets[self.rows]
        shares = targets if targets.is_floating_point() else one_hot(targets, like.shape[1])
        return self.sources @ shares.to(self.sources.dtype)


@dataclass(frozen=True, slots=True)
class StudentLosses:
    """The total loss and its parts, by the names they are logged under; one value per image."""

    total: Float[Tensor, " batch"]
    parts: dict[str, Float[Tensor, " batch"]]


@dataclass(frozen=True, slots=True)
class Terms:
    """The weights of an objective's terms."""

    ce: float = 0.0
    """Cross-entropy to the labels, on clean images."""
    clean: float = 0.0
    """KD on clean images."""
    augmented: float = 0.0
    """KD on augmented images."""
    ce_augmented: float = 0.0
    """Cross-entropy to the labels, on augmented images."""
    temperature: float = 1.0
    jsd: float = 0.0
    """Jensen-Shannon divergence between the answers on all views."""


@dataclass(eq=False)
class StudentObjective:
    """The student's loss: one sum of weighted terms for every kind of objective."""

    config: ObjectiveConfig
    _: KW_ONLY
    smoothing: float = 0.0
    """Of the cross-entropy terms."""
    has_second_view: bool = True
    """Whether there are augmented images beside the clean ones."""
    labelled: float = 1.0
    """Share of each batch whose images have labels. The cross-entropy is a mean over these; at 0 there is none."""
    distance: EmbeddingDistance = COSINE
    """Of embeddings."""

    @property
    def asks_teacher(self) -> bool:
        """Whether the teacher's logits are needed."""
        return not isinstance(self.config, CrossEntropyObjective)

    @property
    def has_classes(self) -> bool:
        """Whether the networks answer with logits of classes, not with an embedding."""
        return not isinstance(self.config, EmbeddingObjective)

    @property
    def compares_views(self) -> bool:
        """Whether the student's answers on several views of an image are compared."""
        return self.terms(epoch=math.inf).jsd > 0

    @property
    def learns_clean(self) -> bool:
        """Whether the clean view is learned from, beside the augmented one."""
        terms = self.terms(epoch=math.inf)
        return terms.ce > 0 or terms.clean > 0 or terms.augmented == 0

    def terms(self, *, epoch: float) -> Terms:  # noqa: PLR0911  (one for each kind)
        """The weights after `epoch` epochs of student updates; those of DKD warm up."""
        match self.config:
            case HardObjective() as c:
                return Terms(c.w_ce, c.w_clean, c.w_aug, temperature=c.temperature)
            case KdObjective() as c:
                labels = 1 - c.alpha if c.label_augmented else 0.0
                return Terms(1 - c.alpha, c.alpha, c.alpha, labels, c.temperature)
            case DadObjective() as c:
                if c.weighting == "released":
                    return Terms(augmented=0.25, ce_augmented=0.75, temperature=c.temperature)
                return Terms(1.0, 0.5, 0.5, temperature=c.temperature)
            case DkdObjective() as c:
                warmth = min(1.0, epoch / c.warmup_epochs) if c.warmup_epochs else 1.0
                return Terms(c.w_ce, warmth, warmth, temperature=c.temperature)
            case FunctionMatchingObjective() as c:
                alone = 0.0 if self.has_second_view else 1.0
                return Terms(0.0, alone, 1.0, temperature=c.temperature)
            case EmbeddingObjective() as c:
                return Terms(0.0, c.w_clean, c.w_aug)
            case CrossEntropyObjective():
                return Terms(1.0, jsd=self.config.jsd)
            case _:
                assert_never(self.config)

    def __call__(self, views: Views, *, epoch: float) -> StudentLosses:
        """The losses of one batch, after `epoch` epochs of student updates: DKD warms up over them."""
        if self.asks_teacher and views.teacher is None and views.teacher_augmented is None:
            raise ValueError(f"{self.config.kind} needs the teacher's logits")
        terms = self.terms(epoch=epoch)
        parts: dict[str, Tensor] = {}
        weights: dict[str, float] = {}
        if views.student is not None:
            if self.labelled and self.has_classes:
                parts["ce_loss"] = self._labels(views.student, views.targets(views.student))
                weights["ce_loss"] = terms.ce
            if views.teacher is not None:
                parts["kd_loss"] = self._distance(views.student, views.teacher, views.classes(), terms)
                weights["kd_loss"] = terms.clean
        if views.student_augmented is not None and views.teacher_augmented is not None:
            student, teacher = views.student_augmented, views.teacher_augmented
            parts["disagreement"] = self._distance(student, teacher, views.augmented_classes(), terms)
            weights["disagreement"] = terms.augmented
            if terms.ce_augmented and self.labelled:
                parts["ce_augmented"] = self._labels(student, views.augmented_targets(student))
                weights["ce_augmented"] = terms.ce_augmented
        if terms.jsd:
            parts["jsd_loss"], weights["jsd_loss"] = losses.jensen_shannon(_by_view(views)), terms.jsd
        total = torch.stack([weight * parts[name] for name, weight in weights.items()]).sum(dim=0)
        return StudentLosses(total, parts | self._tokens(views) | self._drift(views, terms.temperature))

    def _labels(self, student: Tensor, labels: Tensor) -> Tensor:
        if self.labelled == 1.0:
            return losses.cross_entropy(student, labels, smoothing=self.smoothing)
        if labels.is_floating_point():  # shares that add up to that of the labelled images in a mixed one
            labels = (1 - self.smoothing) * labels + self.smoothing * labels.mean(dim=1, keepdim=True)
            return losses.cross_entropy(student, labels) / self.labelled
        return losses.cross_entropy(student, labels, smoothing=self.smoothing) / self.labelled

    def accuracy(self, views: Views) -> dict[str, Float[Tensor, ""]]:
        """The student's accuracy in percent by the name it is logged under: on the main view, if it is learned from.

        Without labels, it is the agreement with the teacher; without classes, there is neither. The class of a mixed
        image is that of the larger share.
        """
        if not self.has_classes:
            return {}
        logits, teacher = views.student, views.teacher
        if logits is None:
            logits, teacher = views.student_augmented, views.teacher_augmented
        assert logits is not None
        guess = logits.detach().argmax(dim=1)
        if self.labelled:
            classes = views.classes() if views.student is not None else views.augmented_classes()
            return {"top1": 100.0 * (guess == classes).float().mean() / self.labelled}
        assert teacher is not None
        return {"agreement": 100.0 * (guess == teacher.argmax(dim=1)).float().mean()}

    def _distance(self, student: Tensor, teacher: Tensor, labels: Tensor, terms: Terms) -> Tensor:
        if isinstance(self.config, EmbeddingObjective):
            return self.distance(teacher, student)
        if isinstance(self.config, DkdObjective):
            alpha, beta = self.config.alpha, self.config.beta
            return losses.dkd(student, teacher, labels, alpha=alpha, beta=beta, temperature=terms.temperature)
        return losses.divergence(teacher, student, temperature=terms.temperature)

    @torch.no_grad()
    def _tokens(self, views: Views) -> dict[str, Tensor]:
        """The distance of tokens on clean images, without its weight: logged, and a part of the losses already."""
        if self.distance.layout is None or views.student is None or views.teacher is None:
            return {}
        return {"token_loss": self.distance.of_tokens(views.teacher, views.student)}

    def _drift(self, views: Views, temperature: float) -> dict[str, Tensor]:
        """Change of the teacher's answer by the augmentation: logged, not minimised."""
        clean = _clean_answers(views)
        if clean is None or views.teacher_augmented is None:
            return {}
        if not self.has_classes:
            kept = embedding_to_keep(clean, views.sources, self.distance)
            return {"drift": embedding_drift(views.teacher_augmented, kept, self.distance)}
        return {"drift": Drift(temperature)(views.teacher_augmented, answer_to_keep(clean, views.sources, temperature))}


def _by_view(views: Views) -> Float[Tensor, "views batch classes"]:
    """The student's answers on the first view of each image and on the further ones."""
    if views.student is None or views.student_augmented is None:
        raise ValueError("objective.jsd compares several views of each image, got one; set data.augment.splits")
    answers = torch.cat([views.student, views.student_augmented])
    return answers.view(-1, *views.student.shape)


def _clean_answers(views: Views) -> Tensor | None:
    """The teacher's answers on the clean images: its own for each augmented one, or all if they are mixed."""
    clean = views.teacher
    if clean is None or (views.sources is None and views.rows is None):
        return clean
    clean = views.batch.teacher  # which sources and rows refer to
    assert clean is not None
    return clean if views.sources is not None else clean[views.rows]


def answer_to_keep(
    clean: Float[Tensor, "batch classes"], sources: Float[Tensor, "views batch"] | None, temperature: float
) -> dict[str, Tensor]:
    """Build the context of `Drift`: the answer on the clean image, or a mixture of answers for a mixed image.

    `clean` are the teacher's logits on the images themselves; `sources` are as in `Views`.
    """
    if sources is None:
        return {"clean": clean}
    return {"anchor": sources @ (clean / temperature).softmax(dim=1).to(sources.dtype)}
