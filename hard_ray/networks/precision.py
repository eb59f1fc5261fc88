"""Device, autocast type and memory layout that networks compute with."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hard_ray.data.batch import Pixels

Images = Pixels | Tensor
"""Images as a teacher is asked about them, in main memory or on a device; shape and values as `Pixels`."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

INPUT_SCALES = (2.0**12, 2.0**6, 1.0)
"""Factors of a loss whose gradient to images is computed in float16; the largest with a finite gradient is taken."""

_GLIBC_TRIM, _GLIBC_MMAP = -1, -3
_KEPT_BYTES = 2**30


def prepare_kernels(threads: int | None, *, deterministic: bool = False, tf32: bool | None = None) -> None:
    """Set up a process that only computes: set its threads, if given, and let it keep freed memory.

    Where it has a GPU, choose the algorithms there by `runtime.deterministic` and `runtime.tf32`.

    An update frees the memory that the next one allocates. By default glibc returns it to the system in between, and
    every page is cleared again: a fifth of a teacher's time on small images. Other C libraries are not touched.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    if torch.cuda.is_available():
        choose_algorithms(deterministic=deterministic, tf32=tf32)
    try:
        set_option = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    set_option(_GLIBC_MMAP, _KEPT_BYTES)
    set_option(_GLIBC_TRIM, _KEPT_BYTES)


def choose_algorithms(*, deterministic: bool, tf32: bool | None) -> None:
    """Choose the algorithms of a GPU, for the whole process: the same bits at every call, or the fastest ones.

    Without `deterministic`, cuDNN times its convolutions and takes the fastest. `tf32` is as in `runtime.tf32`.
    """
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it first computes
        # filling finds mistakes of a program, and takes time
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if torch.are_deterministic_algorithms_enabled() != deterministic:
        torch.use_deterministic_algorithms(deterministic)
    if tf32 is not None:
        # torch.compile reads these two, and fails where torch's newer names, one for each kind of product, were used
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32


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

    def images(self, pixels: Images) -> Tensor:
        """Pixels of shape (batch, channels, height, width) as images in [0, 1] on the device.

        A tensor that is there already is not copied, and the images may share its memory.
        """
        images = pixels.detach().to(self.device) if isinstance(pixels, Tensor) else to_device(pixels, self.device)
        if images.dtype == torch.uint8:
            images = images.float() / 255.0
        return images.contiguous(memory_format=self.memory_format)


def to_device(array: NDArray[Any], device: torch.device, *, copied: bool = True) -> Tensor:
    """An array on a device; on a GPU nothing waits for it but the kernels that are started afterwards.

    It goes there from page-locked memory by a stream of its own, beside the kernels that were started before. On a CPU
    it is copied, unless the array is the caller's own: arrays from shared memory are read-only, and their alignment
    would decide the last bits.
    """
    if device.type != "cuda":
        return (torch.tensor(array) if copied else torch.from_numpy(array)).to(device)
    locked = torch.empty(array.shape, dtype=_torch_type(array), pin_memory=True)
    locked.numpy()[...] = array
    kernels, copies = torch.cuda.current_stream(device), _copies(device)
    with torch.cuda.stream(copies):
        there = locked.to(device, non_blocking=True)
    kernels.wait_stream(copies)
    there.record_stream(kernels)  # its memory is the copying stream's, which must not give it away earlier
    return there


def _torch_type(array: NDArray[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, array.dtype)).dtype


@functools.cache
def _copies(device: torch.device) -> torch.cuda.Stream:
    """The stream of a GPU that copies to it, one for the process."""
    return torch.cuda.Stream(device)


@contextmanager
def no_waiting(device: torch.device) -> Iterator[None]:
    """Within the block, whatever makes the CPU wait for kernels of a GPU raises a RuntimeError; on a CPU, nothing."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def as_bytes(images: Tensor) -> Tensor:
    """Images in [0, 1] rounded to pixels from 0 to 255, on the images' device."""
    return (images * 255.0).round().to(torch.uint8)


def to_pixels(images: Tensor) -> NDArray[np.uint8]:
    """Images in [0, 1] rounded to pixels, in main memory."""
    return to_array(as_bytes(images))


def to_array(tensor: Tensor) -> NDArray[Any]:
    """The values of a tensor in main memory, without its gradient."""
    return to_main_memory(tensor.detach().contiguous())


def to_main_memory(tensor: Tensor) -> NDArray[Any]:
    """The values of a tensor without a gradient, in its memory layout; from a GPU they come into page-locked memory."""
    if tensor.is_cuda:
        locked = torch.empty_like(tensor, device="cpu", pin_memory=True)
        locked.copy_(tensor, non_blocking=True)
        torch.cuda.current_stream(tensor.device).synchronize()
        tensor = locked
    array: NDArray[Any] = tensor.cpu().numpy()
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
