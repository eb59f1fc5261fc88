"""Device, autocast type and memory layout that networks compute with."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hard_ray.data.batch import Pixels

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

INPUT_SCALES = (2.0**12, 2.0**6, 1.0)
"""Factors of a loss whose gradient to images is computed in float16; the largest with a finite gradient is taken."""

_GLIBC_TRIM, _GLIBC_MMAP = -1, -3
_KEPT_BYTES = 2**30


def prepare_kernels(threads: int | None) -> None:
    """Set up a process that only computes: set its threads, if given, and let it keep freed memory.

    An update frees the memory that the next one allocates. By default glibc returns it to the system in between, and
    every page is cleared again: a fifth of a teacher's time on small images. Other C libraries are not touched.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        set_option = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    set_option(_GLIBC_MMAP, _KEPT_BYTES)
    set_option(_GLIBC_TRIM, _KEPT_BYTES)


@dataclass(frozen=True, slots=True)
class Precision:
    """The device, type and memory layout that a network computes with."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    channels_last: bool = False

    def autocast(self) -> torch.autocast:
        """Mixed precision, unless `dtype` is float32."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    @property
    def memory_format(self) -> torch.memory_format:
        """The memory layout of images and weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def gradients(self, loss: Tensor, leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Gradients of a loss to what the network was given, as images, in their type.

        In float16 the loss is scaled by a power of two, which is then divided out: most of a gradient per pixel is
        below 6e-5, the smallest number that float16 holds with all of its digits. Looking whether it is finite waits
        for the device, as whoever sends the gradient to another process does anyway.
        """
        if self.dtype != torch.float16:
            return torch.autograd.grad(loss, leaves)
        for scale in INPUT_SCALES:
            grads = torch.autograd.grad(scale * loss, leaves, retain_graph=scale != INPUT_SCALES[-1])
            if all(bool(grad.isfinite().all()) for grad in grads):
                break
        return tuple(grad / scale for grad in grads)

    def images(self, pixels: Pixels) -> Tensor:
        """Pixels of shape (batch, channels, height, width) as images in [0, 1] on the device."""
        # copied, because arrays from shared memory are read-only and their alignment would decide the last bits
        images = torch.tensor(pixels).to(self.device)
        if images.dtype == torch.uint8:
            images = images.float() / 255.0
        return images.contiguous(memory_format=self.memory_format)


def as_bytes(images: Tensor) -> Tensor:
    """Images in [0, 1] rounded to pixels from 0 to 255, on the images' device."""
    return (images * 255.0).round().to(torch.uint8)


def to_pixels(images: Tensor) -> NDArray[np.uint8]:
    """Images in [0, 1] rounded to pixels, in main memory."""
    return to_array(as_bytes(images))


def to_array(tensor: Tensor) -> NDArray[Any]:
    """The values of a tensor in main memory, without its gradient."""
    array: NDArray[Any] = tensor.detach().cpu().contiguous().numpy()
    return array


def widen(logits: Tensor) -> Tensor:
    """Logits in float32 or wider: losses are computed in that, whatever type the network computed in."""
    return logits if logits.dtype == torch.float64 else logits.float()


@contextmanager
def resting(network: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block: BatchNorm uses its averages and does not update them."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
