"""The frozen teacher: logits, and losses with their gradient to the images.

`FrozenNetwork` is one network in one process. The training step asks a `TeacherPool`, wherever the teacher lives:
`LocalPool` answers in the calling process, `hard_ray.orchestration.pool.server` from actors. A request carries
everything that its answer needs, so any replica can answer it, and sending it again changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hard_ray.augmentors.base import Gradient
from hard_ray.augmentors.labels import Labels
from hard_ray.config.networks import TeacherConfig
from hard_ray.distillation.messages import Answer, ContextArrays, GradientAnswer, Ticket, checked, short
from hard_ray.distillation.objectives import LabelCrossEntropy, TeacherObjective, label_context
from hard_ray.errors import TeacherError
from hard_ray.networks.embedding import build_tower
from hard_ray.networks.network import ImageSpec, Network, build_teacher
from hard_ray.networks.precision import (
    DTYPES,
    Images,
    Precision,
    prepare_kernels,
    to_array,
    to_device,
    to_main_memory,
    widen,
)
from hard_ray.storage.address import Remote
from hard_ray.storage.mirror import Mirror

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TeacherSpec:
    """Everything that a process needs to become a replica of the teacher."""

    config: TeacherConfig
    images: ImageSpec
    dtype: str = "float32"
    channels_last: bool = False
    threads: int | None = None
    """Threads of torch's kernels; None keeps the default of the process."""
    compile_mode: str | None = None
    """Mode of torch.compile; None: not compiled."""
    sizes: tuple[int, ...] = ()
    """Sizes of the batches that it is compiled for, the one to try first; others are answered eagerly."""
    deterministic: bool = False
    tf32: bool | None = None
    embeds: bool = False
    """Whether it answers with its embedding, without its class head."""
    with_tokens: bool = False
    """Whether it answers with its tokens beside its embedding."""
    weights_at: str | None = None
    """The URL of the run whose part `teacher/student` holds the weights; None: `config` says where they are."""

    @property
    def source(self) -> TeacherConfig:
        """The configuration, with weights that this machine has: those at a URL are brought to it."""
        if self.weights_at is None:
            return self.config
        mirror = Mirror.of(Remote.parse(self.weights_at))
        mirror.pull(lambda name: name.startswith("teacher/student/"))
        return self.config.model_copy(update={"checkpoint": mirror.folder / "teacher" / "student"})


class TeacherPool(Protocol):
    """Answers the requests of the training step. Each ticket belongs to one request; await them in any order.

    Images must not change until their ticket is answered. Answers are arrays in main memory.
    """

    @property
    def takes_tensors(self) -> bool:
        """Whether images on a device are best handed over as they are there, not by way of main memory."""

    def identity(self) -> str:
        """Hash of the teacher's weights, input contract, class order and precision, and whether it is compiled."""

    def logits(self, images: Images) -> Ticket[NDArray[np.float32]]:
        """Ask for logits, shape (batch, classes), or for the embedding, shape (batch, dimension)."""

    def loss_and_grad(
        self, images: Images, objective: TeacherObjective, context: ContextArrays
    ) -> Ticket[GradientAnswer]:
        """Ask for a loss per image and its gradient to the images."""


class FrozenNetwork:
    """A network in evaluation mode, without gradients to its parameters."""

    def __init__(self, network: Network, *, dtype: str = "float32", channels_last: bool = False) -> None:
        """Freeze `network` and move it to the GPU if there is one."""
        if dtype not in DTYPES:
            raise ValueError(f"want a dtype of {', '.join(DTYPES)}, got {dtype!r}")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision = Precision(device, DTYPES[dtype], channels_last)
        self._dtype, self._identity = dtype, ""
        self.network = network.freeze().to(device).to(memory_format=self.precision.memory_format)

    @classmethod
    def build(cls, spec: TeacherSpec) -> FrozenNetwork:
        """Load the teacher that `spec` describes; raises ModelError if the network or its weights cannot be used."""
        prepare_kernels(spec.threads, deterministic=spec.deterministic, tf32=spec.tf32)
        if spec.embeds:
            network = build_tower(spec.source, spec.images, with_tokens=spec.with_tokens)
        else:
            network = build_teacher(spec.source, spec.images)
        teacher = cls(network, dtype=spec.dtype, channels_last=spec.channels_last)
        if spec.compile_mode is not None and spec.sizes:
            teacher.compile(spec.compile_mode, spec.sizes, spec.images.img_size)
        return teacher

    def compile(self, mode: str, sizes: Sequence[int], img_size: int) -> None:
        """Compile the network for batches of these sizes, or say why that cannot be."""
        example = np.zeros((sizes[0], self.network.mean.shape[1], img_size, img_size), np.uint8)
        problem = self.network.compile_for(mode, sizes=sizes, name="the teacher", attempt=lambda: self.logits(example))
        if problem is not None:
            logger.warning("runtime.teacher.compile: the teacher runs without torch.compile (%s)", problem)

    def identity(self) -> str:
        """Hash of weights, input contract and class order, precision, compilation, and the layout of tokens if any.

        It is made when it is first asked for.
        """
        if not self._identity:
            compilation = self.network.compilation
            compiled = "" if compilation is None else f"-compiled-{compilation.mode}"
            tokens = "" if self.network.tokens is None else f"-{self.network.tokens.layout}"
            self._identity = f"{self.network.identity()}-{self._dtype}{compiled}{tokens}"
        return self._identity

    def logits(self, images: Images) -> NDArray[np.float32]:
        """Logits, shape (batch, classes); of a tower its embedding, shape (batch, dimension), and tokens if it has."""
        with torch.inference_mode(), self.precision.autocast():
            logits = self.network(self.precision.images(images))
        return to_array(widen(logits))

    def loss_and_grad(self, images: Images, objective: TeacherObjective, context: ContextArrays) -> GradientAnswer:
        """The objective's value per image and its gradient to the images.

        Each image's loss depends on that image alone (evaluation mode), so the gradient of the sum is the gradient of
        each. The objective gets logits in float32, or wider where the network computes so, and one row of `context` per
        image.
        """
        with torch.inference_mode(False), torch.enable_grad():  # also inside a caller's no_grad or inference mode
            pixels = self.precision.images(images).requires_grad_()
            given = {name: to_device(rows, self.precision.device) for name, rows in context.items()}
            with self.precision.autocast():
                logits = self.network(pixels)
            logits = widen(logits)
            loss = objective(logits, given)
            (grad,) = self.precision.gradients(loss.sum(), [pixels])
        return GradientAnswer(to_array(loss), to_array(grad), to_array(logits))


def handed(pool: TeacherPool, images: Tensor) -> Images:
    """Images as the pool takes them: where they are, or in main memory."""
    return images.detach() if pool.takes_tensors else to_main_memory(images.detach())


def label_gradient(pool: TeacherPool, precision: Precision) -> Gradient:
    """Make a function of images and labels: the gradient of the teacher's cross-entropy to the images."""

    def gradient(images: Tensor, labels: Labels) -> Tensor:
        context = {name: to_array(values) for name, values in label_context(labels).items()}
        answer = pool.loss_and_grad(handed(pool, images), LabelCrossEntropy(), context).result()
        return to_device(answer.grad, precision.device)

    return gradient


def own_answer(pool: TeacherPool, precision: Precision) -> Callable[[Tensor], Tensor]:
    """Make a function of images: the teacher's logits, on the device."""

    def answer(images: Tensor) -> Tensor:
        return to_device(pool.logits(handed(pool, images)).result(), precision.device)

    return answer


@dataclass(frozen=True, slots=True)
class Answered(Generic[Answer]):
    """A ticket whose answer is already known."""

    answer: Answer

    def result(self) -> Answer:
        """The answer."""
        return self.answer


class LocalPool:
    """Answers in the calling process: `placement: colocated`, and tests."""

    def __init__(self, teacher: FrozenNetwork) -> None:
        """Serve `teacher`."""
        self.teacher = teacher

    @property
    def takes_tensors(self) -> bool:
        """True on a GPU, where the teacher is too; on a CPU a tensor and its array are the same memory."""
        return self.teacher.precision.device.type == "cuda"

    def identity(self) -> str:
        """The teacher's identity."""
        return self.teacher.identity()

    def logits(self, images: Images) -> Ticket[NDArray[np.float32]]:
        """Answer at once."""
        return Answered(checked(self.teacher.logits(images), images))

    def loss_and_grad(
        self, images: Images, objective: TeacherObjective, context: ContextArrays
    ) -> Ticket[GradientAnswer]:
        """Answer at once."""
        return Answered(checked(self.teacher.loss_and_grad(images, objective, context), images, context))


def check_identity(pool: TeacherPool, expected: str | None) -> str:
    """Return the pool's identity; raises TeacherError if the run began with another one, `expected`."""
    found = pool.identity()
    if expected is not None and found != expected:
        raise TeacherError(
            f"the teacher has identity {short(found)}, the run began with {short(expected)}: its weights, input "
            "contract, class order, precision or torch.compile changed; put the first teacher back, or start a new run"
        )
    return found
