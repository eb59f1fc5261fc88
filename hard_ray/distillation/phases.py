"""The two phases of an update: the student learns, or the augmentor does.

Symbols as in HARD (arXiv:2305.14890): images x, their augmentation x~ = g_phi(x, noise), logits t and s of teacher
and student, and D(a || b) = T^2 KL(softmax(a / T) || softmax(b / T)), one value per image.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from hard_ray.augmentors.base import AugmentationInput, AugmentedView, Augmentor
from hard_ray.augmentors.labels import Labels
from hard_ray.config.controller import part_of
from hard_ray.distillation.loss_scale import LossScale
from hard_ray.distillation.messages import GradientAnswer, Ticket
from hard_ray.distillation.meter import Clock, Scalars
from hard_ray.distillation.objectives import AugmentorLoss, StudentObjective, Views, in_parts
from hard_ray.distillation.optimisers import Clipping
from hard_ray.distillation.teacher import TeacherPool, handed
from hard_ray.networks.network import Network
from hard_ray.networks.precision import Precision, resting, to_array, to_device, widen
from hard_ray.networks.training_modes import recomputing
from hard_ray.ranks import Ranks


@dataclass(slots=True)
class Learner:
    """Everything that an update changes: a student, an augmentor and their optimisers."""

    student: nn.Module
    """Called for a student update: wrapped for several ranks where there are several."""
    network: nn.Module
    """The student itself, called for an augmentor update."""
    optimizer: Optimizer
    augmentor: Augmentor | None = None
    augmentor_optimizer: Optimizer | None = None
    loss_scale: LossScale | None = None
    """None: gradients of the student need no scale."""


@dataclass(slots=True)
class Augmented:
    """An augmented view x~, as pixels that both networks see."""

    images: Tensor
    teacher: Ticket[NDArray[np.float32]] | None
    """None where images are still to be chosen, before the teacher is asked about them."""
    sources: Tensor | None = None
    rows: Tensor | None = None
    """The image of the batch that each was made from; None: in the batch's order."""


@dataclass(slots=True)
class Prepared:
    """A batch on the device, whose teacher answers were asked for."""

    images: Tensor
    """The main view: mixed, if the run mixes it."""
    labels: Labels
    given: AugmentationInput
    sample_ids: NDArray[np.int64]
    teacher: Ticket[NDArray[np.float32]] | None = None
    splits: Tensor | None = None
    """Further views of the images, that of every image and then the next: compared by their answers alone."""
    augmented: Augmented | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a batch, or all of it: what the student looks at, and what it learns from its answers."""

    images: Tensor | None
    """x; None: it is not learned from."""
    augmented: Tensor | None
    """x~; None: there is none."""
    views: Views
    """Without the student's logits."""

    def __len__(self) -> int:
        """The losses of which the mean is taken."""
        images = self.augmented if self.images is None else self.images
        assert images is not None
        return len(images)


@dataclass(frozen=True, slots=True)
class StudentPhase:
    """The student learns the teacher's answers on both views; the augmentor rests.

    A batch may be divided into parts, which go forward and backward one after the other: the gradients add up to that
    of the batch, with the memory of a part.
    """

    learner: Learner
    objective: StudentObjective
    precision: Precision
    clock: Clock
    clipping: Clipping | None
    share: float
    accumulate: int = 1
    """Parts of a batch."""

    def update(
        self,
        prepared: Prepared,
        augmented: Augmented | None,
        teacher: Tensor | None,
        teacher_augmented: Tensor | None,
        *,
        epoch: float,
    ) -> tuple[Views, Scalars]:
        """Make one update from t(x) and t(x~)."""
        start = time.perf_counter()
        rows, sources = (augmented.rows, augmented.sources) if augmented is not None else (None, None)
        batch = Views(prepared.labels, None, teacher, None, teacher_augmented, rows, sources)
        pieces = self.pieces(prepared.images, augmented, batch)
        images = sum(len(piece) for piece in pieces)
        self.learner.optimizer.zero_grad(set_to_none=True)
        metrics: Scalars = {}
        for number, piece in enumerate(pieces, start=1):
            weight = len(piece) / images
            with self.gradients_stay_here(number < len(pieces)):
                found = self.learn(piece, weight, epoch=epoch)
            for name, value in found.items():
                metrics[name] = metrics[name] + weight * value if name in metrics else weight * value
        metrics |= self.step()
        self.clock.add("student", start)
        return batch, metrics

    def pieces(self, images: Tensor, augmented: Augmented | None, batch: Views) -> list[Piece]:
        """Divide a batch into parts, each with all views of its images."""
        count = min(self.accumulate, len(images))
        clean = images.tensor_split(count)
        if augmented is None or augmented.images is images:
            second: tuple[Tensor | None, ...] = (None,) * count if augmented is None else clean
        else:
            second = tuple(in_parts(augmented.images, count, images=len(images)))
        first: tuple[Tensor | None, ...] = (
            clean if self.objective.learns_clean or augmented is None else (None,) * count
        )
        return [Piece(*parts) for parts in zip(first, second, batch.parts(count), strict=True)]

    def gradients_stay_here(self, partial: bool) -> AbstractContextManager[None]:
        """Gradients of a part of the batch are not averaged over the ranks: those of the last part bring them all."""
        student = self.learner.student
        return student.no_sync() if partial and isinstance(student, DistributedDataParallel) else nullcontext()

    def learn(self, piece: Piece, weight: float, *, epoch: float) -> Scalars:
        """Add the gradient of a part, whose share of the batch is `weight`, and return the part's means."""
        student, student_augmented = self.logits(piece)
        views = replace(piece.views, student=student, student_augmented=student_augmented)
        found = self.objective(views, epoch=epoch)
        loss = found.total.mean()
        weighted = loss if weight * self.share == 1.0 else weight * self.share * loss
        self.backward(weighted)
        parts = {name: value.detach().mean() for name, value in found.parts.items()}
        named = {"loss": loss.detach(), **self.objective.accuracy(views), **parts}
        return {f"train/{name}": value for name, value in named.items()}

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss to those of the parameters."""
        scale, network = self.learner.loss_scale, self.learner.network
        recomputes = isinstance(network, Network) and network.recomputes
        with recomputing(network) if recomputes else nullcontext():
            torch.autograd.backward(loss if scale is None else scale.scale(loss))

    def logits(self, piece: Piece) -> tuple[Tensor | None, Tensor | None]:
        """s(x) and s(x~), from one forward pass."""
        student, images, augmented = self.learner.student, piece.images, piece.augmented
        with self.precision.autocast():
            if images is None:
                return None, widen(student(augmented))
            if augmented is None:
                return widen(student(images)), None
            if augmented is images:
                logits = widen(student(images))
                return logits, logits
            logits = widen(student(torch.cat([images, augmented])))
        return logits[: len(images)], logits[len(images) :]

    def step(self) -> Scalars:
        """Make one step of the student's optimiser."""
        learner, scale = self.learner, self.learner.loss_scale
        if self.clipping is not None:
            if scale is not None:
                scale.unscale(learner.optimizer)
            self.clipping(learner.network)
        if scale is not None:
            return scale.step(learner.optimizer)
        learner.optimizer.step()
        return {}


@dataclass(frozen=True, slots=True)
class Attempt:
    """Images that the augmentor proposes, and what a loss on them needs."""

    view: AugmentedView
    """As the augmentor made it: gradients flow from here to phi."""
    images: Tensor
    """x~ as a leaf of the graph: gradients of the loss end here."""
    sources: Tensor | None
    """`view.sources` as a leaf."""
    context: dict[str, Tensor]
    """`student`, the logits s(x~), and what `Drift` wants."""


@dataclass(frozen=True, slots=True)
class AugmentorPhase:
    r"""The augmentor seeks images on which the student errs and the teacher does not; the student rests.

    .. math:: \min_\phi\; L = -\lambda_s \min(D(t(\tilde x) \| s(\tilde x)), cap) + \lambda_t D(t(x) \| t(\tilde x))

    L depends on x~ along two paths, through t and through s, and the teacher may live in another process:

    .. math:: dL/d\tilde x = \partial L/\partial t \cdot dt/d\tilde x + \partial L/\partial s \cdot ds/d\tilde x

    Source: HARD, arXiv:2305.14890, section 3. The split of the gradient is ours, and exact.
    """

    augmentor: Augmentor
    optimizer: Optimizer
    network: nn.Module
    """The student."""
    objective: AugmentorLoss
    pool: TeacherPool
    precision: Precision
    ranks: Ranks
    clock: Clock
    share: float
    part: float = 1.0
    """Share of the batch that is used: its first images, which are a random sample since batches are shuffled. The mean
    over a rank's part stands for that over its images."""

    def update(self, prepared: Prepared) -> Scalars:
        """Make one update of phi."""
        attempt, through_teacher = self.attempt(prepared)
        start = time.perf_counter()
        teacher = to_device(through_teacher.logits, self.precision.device)
        loss, grads = self.join_paths(attempt, teacher, through_teacher)
        self.descend(attempt, grads)
        self.clock.add("augmentor", start)
        measured = {"augmentor/loss": loss.mean(), **self.measured(attempt, teacher)}
        if attempt.view.prior is not None:
            measured["augmentor/prior_loss"] = attempt.view.prior.detach()
        statistics = self.augmentor.statistics(self.used(prepared))
        return measured | {f"augmentor/{name}": value for name, value in statistics.items()}

    def used(self, prepared: Prepared) -> AugmentationInput:
        """The images that the update uses."""
        return prepared.given.first(part_of(len(prepared.images), self.part))

    def attempt(self, prepared: Prepared) -> tuple[Attempt, GradientAnswer]:
        """Step 1: augment, and get the path through the teacher."""
        # 1a. x~ = g_phi(x, noise), cut off from phi: the gradient of L ends at x~ until step 3.
        view = self.augmentor.augment(self.used(prepared))
        images = view.images.detach().requires_grad_()
        # 1b. s(x~) with BatchNorm at rest.
        with resting(self.network), self.precision.autocast():
            student = widen(self.network(images))
        # 1c. The answer to keep: t(x), or m t(x_i) + (1 - m) t(x_j) in probabilities where x~ is a mix with shares m.
        if prepared.teacher is None:
            raise RuntimeError("an augmentor phase needs the teacher's logits on clean images")
        clean = to_device(self.clock.wait(prepared.teacher)[: len(student)], self.precision.device)
        sources = None if view.sources is None else view.sources.detach().requires_grad_()
        context = {"student": student, **self.objective.to_keep(clean, sources)}
        # 1d. One round trip: t(x~), and dL/dt dt/dx~ with s(x~) held constant.
        sent = {name: to_array(value) for name, value in context.items()}
        answer = self.clock.wait(self.pool.loss_and_grad(handed(self.pool, images), self.objective, sent))
        return Attempt(view, images, sources, context), answer

    def join_paths(
        self, attempt: Attempt, teacher: Tensor, through_teacher: GradientAnswer
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Step 2: the loss of each image, and pairs of what the augmentor made and dL of it."""
        # 2a. dL/ds ds/dx~ with t(x~) held constant; dL/dm reaches the shares m only here.
        loss = self.objective(teacher, attempt.context)
        leaves = [attempt.images, *_present(attempt.sources)]
        with resting(self.network):  # which may go forward again, see `student.grad_checkpointing`
            grads = self.precision.gradients(loss.sum(), leaves)
        # 2b. The sum of both paths.
        images = grads[0] + to_device(through_teacher.grad, self.precision.device)
        made = [attempt.view.images, *_present(attempt.view.sources)]
        return loss.detach(), list(zip(made, [images, *grads[1:]], strict=True))

    def descend(self, attempt: Attempt, grads: list[tuple[Tensor, Tensor]]) -> None:
        """Step 3: dL/dphi by the chain rule, as the mean over all ranks' images, and one step of the optimiser."""
        self.optimizer.zero_grad(set_to_none=True)
        # the shares of a mix that learns nothing do not depend on phi
        parts = [(made, self.share * grad / len(attempt.images)) for made, grad in grads if made.requires_grad]
        parts += [(term, torch.full_like(term, self.share)) for term in _present(attempt.view.prior)]
        torch.autograd.backward([made for made, _ in parts], [grad for _, grad in parts])
        self.ranks.average_gradients(self.augmentor.parameters())
        self.optimizer.step()
        self.augmentor.remember()

    @torch.no_grad()
    def measured(self, attempt: Attempt, teacher: Tensor) -> Scalars:
        """L_st without its cap, which the controller decides by, and L_tt."""
        return {
            "train/disagreement": self.objective.disagreement(teacher, attempt.context).mean(),
            "train/drift": self.objective.drift(teacher, attempt.context).mean(),
        }


def _present(tensor: Tensor | None) -> list[Tensor]:
    return [] if tensor is None else [tensor]
