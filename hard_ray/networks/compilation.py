"""`torch.compile` of a network's model, in place: weights, their names, exports and the identity stay as they are."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hard_ray.errors import readable
from hard_ray.files import cache_folder

logger = logging.getLogger(__name__)

BACKEND = "inductor"
_forgotten = [0]
"""How often every graph of this process was dropped."""

MOST_GRAPHS = 64
"""Graphs that torch keeps of one model; beyond its own limit of 8 it would go on without compiling, and not say so."""

MOST_BROKEN = 16
"""Broken files of compiled code that are removed before a network stays eager."""

WITH_GRAPHS = frozenset({"reduce-overhead", "max-autotune"})
"""Modes that record CUDA graphs, whose outputs are in memory that the next call writes to."""


@dataclass(slots=True, eq=False)
class Compilation:
    """Which batches of a model are computed by compiled code, and how often it was compiled.

    Every batch in training mode is, and in evaluation mode every one of a size in `sizes`: batches of other sizes, as
    the last one of an evaluation, run eagerly. That depends on the batch alone, so an answer has the same bits whatever
    was computed before, in this process or in another one.
    """

    mode: str
    sizes: frozenset[int]
    name: str
    """What messages call the network."""
    graphs: int = 0
    """Graphs that were made."""
    repeated: int = 0
    """Graphs that were made for batches of a kind that had one: each costs a compilation within the run."""
    _kinds: set[tuple[Any, ...]] = field(default_factory=set)
    _forgotten: int = 0

    def covers(self, images: Tensor, *, training: bool) -> bool:
        """Whether a batch is computed by compiled code."""
        return (training or len(images) in self.sizes) and not torch.compiler.is_compiling()

    def __call__(self, model: nn.Module, images: Tensor) -> Tensor:
        """Logits of normalised images, compiled if `covers` says so.

        A model in evaluation mode is asked for the gradient to its images alone, so its backward graph leaves out the
        weights' gradients, as eager code does.
        """
        logits: Tensor
        if not self.covers(images, training=model.training):
            logits = model.forward(images)
            return logits
        constant = not model.training and images.requires_grad
        before = _graphs()
        with _constant_weights(model, needed=constant):
            logits = model(images)
        if made := _graphs() - before:
            self._note(_kind(model, images), made)
        # CUDA graphs write every output to the same memory; the copy is kept, and the output is free at once
        return logits.clone() if self.mode in WITH_GRAPHS and images.is_cuda else logits

    def _note(self, kind: tuple[Any, ...], made: int) -> None:
        self.graphs += made
        if self._forgotten != _forgotten[0]:
            self._kinds, self._forgotten = set(), _forgotten[0]
        if kind in self._kinds:
            self.repeated += 1
            logger.warning(
                "%s was compiled again for images of shape %s, for which it had been compiled before; "
                "TORCH_LOGS=recompiles names the reason",
                self.name,
                kind[0],
            )
        self._kinds.add(kind)

    def facts(self) -> dict[str, Any]:
        """The mode, and how many graphs were made and made again."""
        return {"mode": self.mode, "graphs": self.graphs, "repeated": self.repeated}


def compile_model(model: nn.Module, mode: str, *, sizes: Sequence[int], name: str) -> Compilation:
    """Compile a model in place at its first call of each kind; `sizes` are as in `Compilation`."""
    prepare_compiler()
    model.compile(backend=BACKEND, mode=mode if BACKEND == "inductor" else None, dynamic=False)
    return Compilation(mode, frozenset(sizes), name)


def prepare_compiler() -> None:
    """Keep compiled code in hardray's cache, unless the user names a folder, and let torch keep `MOST_GRAPHS`."""
    import torch._dynamo
    import torch._functorch.config

    if _code_folder() in (None, _torchs_folder()):  # torch writes its own choice into the environment
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache_folder() / "inductor")
    torch._dynamo.config.recompile_limit = max(MOST_GRAPHS, torch._dynamo.config.recompile_limit)
    torch._functorch.config.donated_buffer = False  # a gradient in float16 may be computed twice, with another scale


def problem_of(attempt: Callable[[], object], model: nn.Module) -> str | None:
    """Why compiled code of a model does not run, after `attempt` called it; None: it does.

    The model's buffers, as BatchNorm's averages, are those from before.
    """
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        return _problem(attempt)
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])


def _problem(attempt: Callable[[], object]) -> str | None:
    """Why `attempt` fails, once no broken file of the cache is the reason; None: it does not."""
    for _ in range(MOST_BROKEN):
        try:
            attempt()
        except Exception as error:  # of the compiler, of the system's compiler, or of a layer that cannot be traced
            reason = _reason(error)
            if not _removes_broken(reason):
                return reason
            forget_graphs()
        else:
            return None
    return reason


def _removes_broken(reason: str) -> bool:
    """Remove a file of compiled code that cannot be loaded: of a process that was killed while it wrote it."""
    found = re.search(r"(/[^:\n]+\.so): ", reason)
    folder = _code_folder()
    if found is None or folder is None or not Path(found[1]).is_relative_to(folder):
        return False
    broken = Path(found[1])
    if not broken.is_file():
        return False
    broken.unlink()
    logger.warning("%s, which a killed process left, was removed and is compiled again", broken)
    return True


def _code_folder() -> str | None:
    return os.environ.get("TORCHINDUCTOR_CACHE_DIR")


def _torchs_folder() -> str:
    """The folder that torch takes if none is named."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    return str(default_cache_dir())


def make_eager(model: nn.Module) -> None:
    """Undo `compile_model`."""
    model._compiled_call_impl = None


def forget_graphs() -> None:
    """Drop every graph of this process, so that each is made again at its next use."""
    import torch._dynamo

    torch._dynamo.reset()
    _forgotten[0] += 1


def toolchain_problem() -> str | None:
    """Why torch.compile makes no code on this machine, found by compiling a sum; None: it does."""
    prepare_compiler()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    double = torch.compile(lambda values: values + values, backend=BACKEND, dynamic=False)
    return _problem(lambda: double(torch.ones(8, device=device)))  # no compiler, no headers, no folder to write to


def _reason(error: Exception) -> str:
    """What went wrong, in one line; torch wraps the errors of its backends in one that names the backend alone."""
    return readable(getattr(error, "inner_exception", None) or error)


@contextmanager
def _constant_weights(model: nn.Module, *, needed: bool) -> Iterator[None]:
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad] if needed else []
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)


def _kind(model: nn.Module, images: Tensor) -> tuple[Any, ...]:
    """What a graph is made for: calls that differ in it need different graphs."""
    device = images.device.type
    return (
        tuple(images.shape),
        images.stride(),
        images.dtype,
        model.training,
        images.requires_grad,
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device),
    )


def _graphs() -> int:
    """Graphs that this process has compiled."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])
