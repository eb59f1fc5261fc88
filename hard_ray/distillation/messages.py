"""Requests to a teacher and its answers, as arrays.

Nothing here imports torch: processes that only pass requests and answers on start without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from hard_ray.errors import TeacherError

if TYPE_CHECKING:
    from torch import Tensor

    from hard_ray.networks.precision import Images

ContextArrays = Mapping[str, NDArray[np.generic]]
"""Inputs of an objective beside the images: one row per image under each name."""

Answer = TypeVar("Answer", covariant=True)


@dataclass(frozen=True, slots=True)
class GradientAnswer:
    """The answer of `loss_and_grad`, one row per image."""

    loss: NDArray[np.float32]
    """Shape (batch,): the objective's value."""
    grad: NDArray[np.float32]
    """Shape of the images: d loss_i / d image_i, for images in [0, 1]."""
    logits: NDArray[np.float32]
    """Shape (batch, classes)."""


@dataclass(frozen=True, slots=True)
class Reply(Generic[Answer]):
    """An answer, and the identity of the teacher that gave it."""

    identity: str
    answer: Answer


class Ticket(Protocol[Answer]):
    """A request that was sent."""

    def result(self) -> Answer:
        """Wait for the answer."""


def short(identity: str) -> str:
    """A teacher's identity as messages show it: the beginning of its hash, and its kernels, which follow the hash."""
    digest, dash, kernels = identity.partition("-")
    return f"{digest[:12]}{dash}{kernels}"


Checked = TypeVar("Checked", NDArray[np.float32], GradientAnswer)


def checked(answer: Checked, images: Images, context: ContextArrays | None = None) -> Checked:
    """Return the answer if it fits these images; raises TeacherError if it has a wrong shape or is not finite.

    If the request contains NaNs, the reply may too; the loss check catches them.
    """
    parts: dict[str, NDArray[np.float32]]
    if isinstance(answer, GradientAnswer):
        parts = {"logits": answer.logits, "losses": answer.loss, "gradients": answer.grad}
    else:
        parts = {"logits": answer}
    rows = len(images)
    shapes = {"logits": (rows, *parts["logits"].shape[-1:]), "losses": (rows,), "gradients": images.shape}
    for name, part in parts.items():
        if part.shape != shapes[name]:
            raise TeacherError(f"the teacher answered with {name} of shape {part.shape} for images of {images.shape}")
        if _finite(part) or not all(map(_finite, (images, *(context or {}).values()))):
            continue
        bad = int((~np.isfinite(part.reshape(rows, -1))).any(axis=1).sum())
        raise TeacherError(
            f"the teacher's {name} are not finite for {bad} of {rows} images; want finite numbers; give other "
            "weights as teacher.checkpoint, or try runtime.teacher.dtype=float32"
        )
    return answer


def _finite(values: NDArray[Any] | Tensor) -> bool:
    if not isinstance(values, np.ndarray):
        return bool(values.isfinite().all())
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())
