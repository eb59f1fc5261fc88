"""Interpolation whose gradient has the same bits at every call, on a GPU that is asked for deterministic algorithms.

torch adds the gradients of neighbouring pixels in any order there, and refuses to where it is to be deterministic.
Elsewhere these are torch's functions.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_PADDINGS = ("zeros", "border", "reflection")


def sample(
    images: Float[Tensor, "batch channels height width"], grid: Float[Tensor, "batch height width 2"], *, padding: str
) -> Float[Tensor, "batch channels height width"]:
    """`torch.nn.functional.grid_sample`, bilinear, with pixels as squares (align_corners=False)."""
    if _is_exact(grid) and not images.requires_grad:
        sampled: Tensor = _Sampled.apply(images, grid, padding)
        return sampled
    return F.grid_sample(images, grid, padding_mode=padding, align_corners=False)


def resize(
    images: Float[Tensor, "batch channels height width"], size: tuple[int, int], *, mode: str, antialias: bool = False
) -> Float[Tensor, "batch channels rows columns"]:
    """`torch.nn.functional.interpolate`, bilinear or bicubic, with pixels as squares (align_corners=False)."""
    if _is_exact(images):
        resized: Tensor = _Resized.apply(images, size, mode, antialias)
        return resized
    return F.interpolate(images, size=size, mode=mode, align_corners=False, antialias=antialias)


def _is_exact(differentiated: Tensor) -> bool:
    wanted = differentiated.requires_grad and torch.is_grad_enabled()
    return wanted and differentiated.is_cuda and torch.are_deterministic_algorithms_enabled()


class _Sampled(torch.autograd.Function):
    """Samples images that need no gradient: that of the grid is a sum over channels, each by one thread in order."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor, padding: str) -> Tensor:
        ctx.save_for_backward(images, grid)
        ctx.padding = padding
        return F.grid_sample(images, grid, padding_mode=padding, align_corners=False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        images, grid = ctx.saved_tensors
        was_strict = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(False)  # torch refuses both gradients, though only the images' is in doubt
        try:
            _, grad = torch.ops.aten.grid_sampler_2d_backward(
                grads[0], images, grid, 0, _PADDINGS.index(ctx.padding), False, [False, True]
            )
        finally:
            torch.use_deterministic_algorithms(was_strict)
        return None, grad, None


class _Resized(torch.autograd.Function):
    """Resizing is linear in rows and in columns: its gradient is two products with the transposed matrices."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, size: tuple[int, int], mode: str, antialias: bool) -> Tensor:
        ctx.rows, ctx.columns = (
            _matrix(old, new, images, mode, antialias) for old, new in zip(images.shape[-2:], size, strict=True)
        )
        return F.interpolate(images, size=size, mode=mode, align_corners=False, antialias=antialias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.rows.T @ grads[0] @ ctx.columns, None, None, None


def _matrix(old: int, new: int, like: Tensor, mode: str, antialias: bool) -> Float[Tensor, "new old"]:
    """The matrix that resizes a column of `old` pixels to `new`."""
    identity = torch.eye(old, dtype=like.dtype, device=like.device)[None, None]
    return F.interpolate(identity, size=(new, old), mode=mode, align_corners=False, antialias=antialias)[0, 0]
