"""What the student minimises, and what is asked of the teacher together with a gradient.

Teacher objectives are small frozen facts that travel to the teacher and are evaluated there. A loss that mixes
both networks' outputs needs one round trip: the teacher holds the student's logits constant and returns the
gradient along its own path; the worker then holds the teacher's logits constant, evaluates the same objective
and adds the gradient along the student's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, assert_never

from jaxtyping import Float, Int
from torch import Tensor

from hard_ray import losses
from hard_ray.config.objective import (
    CrossEntropyObjective,
    DkdObjective,
    FunctionMatchingObjective,
    HardObjective,
    KdObjective,
    ObjectiveConfig,
)

Context = Mapping[str, Tensor]


class TeacherObjective(Protocol):
    """A loss per image of the teacher's logits and of tensors that came with the request."""

    def __call__(self, teacher: Float[Tensor, "batch classes"], context: Context) -> Float[Tensor, " batch"]:
        """`context` holds one row per image under each name."""
        ...


@dataclass(frozen=True, slots=True)
class LabelCrossEntropy:
    """Cross-entropy of the teacher to labels: what DAD's attack ascends. Context: `labels`."""

    def __call__(self, teacher: Tensor, context: Context) -> Tensor:
        """One value per image, in nats."""
        return losses.cross_entropy(teacher, context["labels"])


@dataclass(frozen=True, slots=True)
class Drift:
    r"""How far the teacher's answer moved: D_T(t(x) || t(x~)).

    Context: `clean`, the logits t(x); or `anchor`, probabilities at this temperature, where an augmented image is
    made of several and its answer should be theirs together.
    """

    temperature: float

    def __call__(self, teacher: Tensor, context: Context) -> Tensor:
        """One value per image, in nats."""
        if "anchor" in context:
            return losses.divergence_from(context["anchor"], teacher, temperature=self.temperature)
        return losses.divergence(context["clean"], teacher, temperature=self.temperature)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """How far the student is from the teacher: D_T(t(x~) || s(x~)). Context: `student`, the logits s(x~)."""

    temperature: float

    def __call__(self, teacher: Tensor, context: Context) -> Tensor:
        """One value per image, in nats."""
        return losses.divergence(teacher, context["student"], temperature=self.temperature)


@dataclass(frozen=True, slots=True)
class HardAugmentation:
    r"""What HARD's augmentor minimises.

    .. math:: -\lambda_s \min(D_\tau(t(\tilde x) \| s(\tilde x)), cap) + \lambda_t D_\tau(t(x) \| t(\tilde x))

    Context: `student`, the logits s(x~), and what `Drift` wants. An image beyond the cap gives no gradient along
    either path.

    Source: HARD, arXiv:2305.14890, section 3. The cap and the defaults are ours.
    """

    temperature: float
    lambda_s: float
    lambda_t: float
    cap: float | None = None

    def __call__(self, teacher: Tensor, context: Context) -> Tensor:
        """One value per image, in nats."""
        disagreement = Disagreement(self.temperature)(teacher, context)
        if self.cap is not None:
            disagreement = disagreement.clamp(max=self.cap)
        return self.lambda_t * Drift(self.temperature)(teacher, context) - self.lambda_s * disagreement


@dataclass(frozen=True, slots=True)
class Views:
    """What the networks said of one batch. The augmented view is None where there is none."""

    labels: Int[Tensor, " batch"]
    student: Float[Tensor, "batch classes"]
    teacher: Float[Tensor, "batch classes"] | None = None
    student_augmented: Float[Tensor, "batch classes"] | None = None
    teacher_augmented: Float[Tensor, "batch classes"] | None = None


@dataclass(frozen=True, slots=True)
class StudentLosses:
    """One value per image: what is minimised, and its parts by the names they are logged under."""

    total: Float[Tensor, " batch"]
    parts: dict[str, Float[Tensor, " batch"]]


class StudentObjective:
    """What the student minimises: one sum for every kind of objective."""

    def __init__(self, config: ObjectiveConfig, *, smoothing: float = 0.0) -> None:
        """`smoothing` applies to the cross-entropy terms."""
        self.config = config
        self.smoothing = smoothing

    @property
    def asks_teacher(self) -> bool:
        """Whether the teacher's logits are needed."""
        return not isinstance(self.config, CrossEntropyObjective)

    def __call__(self, views: Views, *, epoch: float) -> StudentLosses:
        """The losses of one batch.

        Args:
            views: logits of both networks.
            epoch: epochs of student updates so far; DKD warms up over them.
        """
        match self.config:
            case HardObjective() as c:
                return self._sum(views, ce=c.w_ce, clean=c.w_clean, augmented=c.w_aug, temperature=c.temperature)
            case KdObjective() as c:
                return self._sum(views, ce=1 - c.alpha, clean=c.alpha, augmented=c.alpha, temperature=c.temperature)
            case FunctionMatchingObjective() as c:
                return self._sum(views, ce=0.0, clean=1.0, augmented=1.0, temperature=c.temperature)
            case CrossEntropyObjective():
                return self._sum(views, ce=1.0, clean=0.0, augmented=0.0, temperature=1.0)
            case DkdObjective() as c:
                return self._decoupled(views, c, epoch)
            case _:
                assert_never(self.config)

    def _sum(self, views: Views, *, ce: float, clean: float, augmented: float, temperature: float) -> StudentLosses:
        parts = {"ce_loss": losses.cross_entropy(views.student, views.labels, smoothing=self.smoothing)}
        total = ce * parts["ce_loss"]
        if views.teacher is not None:
            parts["kd_loss"] = losses.divergence(views.teacher, views.student, temperature=temperature)
            total = total + clean * parts["kd_loss"]
        if views.student_augmented is not None and views.teacher_augmented is not None:
            parts["disagreement"] = losses.divergence(
                views.teacher_augmented, views.student_augmented, temperature=temperature
            )
            total = total + augmented * parts["disagreement"]
        return StudentLosses(total, parts | _drift(views, temperature))

    def _decoupled(self, views: Views, config: DkdObjective, epoch: float) -> StudentLosses:
        if views.teacher is None:
            raise ValueError("dkd needs the teacher's logits")
        warmth = min(1.0, epoch / config.warmup_epochs) if config.warmup_epochs else 1.0
        ce = losses.cross_entropy(views.student, views.labels, smoothing=self.smoothing)

        def term(student: Tensor, teacher: Tensor) -> Tensor:
            return losses.dkd(
                student,
                teacher,
                views.labels,
                alpha=config.alpha,
                beta=config.beta,
                temperature=config.temperature,
            )

        parts = {"ce_loss": ce, "kd_loss": term(views.student, views.teacher)}
        total = config.w_ce * ce + warmth * parts["kd_loss"]
        if views.student_augmented is not None and views.teacher_augmented is not None:
            parts["disagreement"] = term(views.student_augmented, views.teacher_augmented)
            total = total + warmth * parts["disagreement"]
        return StudentLosses(total, parts | _drift(views, config.temperature))


def _drift(views: Views, temperature: float) -> dict[str, Tensor]:
    """How far the teacher's answer moved: watched, not minimised."""
    if views.teacher is None or views.teacher_augmented is None:
        return {}
    return {"drift": losses.divergence(views.teacher, views.teacher_augmented, temperature=temperature)}
