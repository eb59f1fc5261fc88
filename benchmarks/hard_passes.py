"""The passes that a step of HARD cannot do without, each to be timed alone: its counted arithmetic."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from hard_ray.augmentors.base import AugmentationInput, Augmentor
from hard_ray.networks.precision import Precision, resting

Pass = Callable[[], object]

STUDENT_UPDATE = {"teacher": 2, "student": 1, "augment": 1}
"""Number of each pass in an update of the student."""
AUGMENTOR_UPDATE = {"teacher": 1, "teacher_gradient": 1, "student_gradient": 1, "augmentor_gradient": 1}
"""Number of each pass in an update of the augmentor."""


@dataclass(frozen=True, slots=True)
class HardPasses:
    """Networks, augmentor and optimisers of a step, and a batch on the device."""

    teacher: nn.Module
    student: nn.Module
    augmentor: Augmentor
    optimizer: Optimizer
    augmentor_optimizer: Optimizer
    precision: Precision
    images: Tensor
    given: AugmentationInput

    def named(self) -> dict[str, Pass]:
        """Every pass, by the names of `STUDENT_UPDATE` and `AUGMENTOR_UPDATE`."""
        return {
            "teacher": self.teacher_pass,
            "teacher_gradient": self.teacher_gradient,
            "student": functools.partial(self.student_pass, torch.cat([self.images, self.images])),
            "student_gradient": self.student_gradient,
            "augment": self.augment,
            "augmentor_gradient": self.augmentor_gradient,
        }

    def teacher_pass(self) -> None:
        """The teacher's logits."""
        with torch.inference_mode(), self.precision.autocast():
            self.teacher(self.images)

    def teacher_gradient(self) -> None:
        """A loss of the teacher's logits, and its gradient to the images."""
        pixels = self.images.detach().requires_grad_()
        with self.precision.autocast():
            loss = self.teacher(pixels).float().logsumexp(1).sum()
        torch.autograd.grad(loss, pixels)

    def student_pass(self, both: Tensor) -> None:
        """An update of the student on both views."""
        with self.precision.autocast():
            loss = self.student(both).float().logsumexp(1).mean()
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()

    def student_gradient(self) -> None:
        """A loss of the resting student's logits, and its gradient to the images."""
        pixels = self.images.detach().requires_grad_()
        with resting(self.student), self.precision.autocast():
            loss = self.student(pixels).float().logsumexp(1).sum()
        torch.autograd.grad(loss, pixels)

    def augment(self) -> None:
        """The augmented view."""
        with torch.no_grad():
            self.augmentor.view(self.given)

    def augmentor_gradient(self) -> None:
        """An update of the augmentor from a gradient to its images."""
        self.augmentor_optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.augmentor.augment(self.given).images.mean())
        self.augmentor_optimizer.step()


def counted(seconds: Mapping[str, float], *, student_updates: int, augmentor_updates: int) -> float:
    """The time of so many updates if they were their passes alone, from the seconds of each pass."""
    student = sum(count * seconds[name] for name, count in STUDENT_UPDATE.items())
    augmentor = sum(count * seconds[name] for name, count in AUGMENTOR_UPDATE.items())
    return student_updates * student + augmentor_updates * augmentor


class _Counter(TorchDispatchMode):
    """Counts arithmetic like torch's FlopCounterMode, whose hooks fail in the gradient to an input alone."""

    flops: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._overloadpacket not in flop_registry:
            with self:
                parts = func.decompose(*args, **(kwargs or {}))  # in inference mode, conv2d comes whole
            if parts is not NotImplemented:
                return parts
        out = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func._overloadpacket):
            self.flops += count(*args, **(kwargs or {}), out_val=out)
        return out


def flops(call: Pass) -> int:
    """Floating-point operations of a call in matrix products and convolutions, forward and backward."""
    counter = _Counter()  # type: ignore[no-untyped-call]
    with counter:
        call()
    return counter.flops
