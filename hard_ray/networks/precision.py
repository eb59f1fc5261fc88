"""Device, autocast type and memory layout that networks compute with."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hard_ray.data.batch import Pixels

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

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
