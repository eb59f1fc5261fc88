"""Fit weights that were read to a network, and load them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from hard_ray.errors import ModelError
from hard_ray.networks.checkpoint import Checkpoint, Weights, read_checkpoint
from hard_ray.networks.misfit import Misfit, Remedies, explained

PREFIXES = ("module.", "_orig_mod.", "model.")
"""Prefixes that wrappers around a module add to every key."""
COUNTERS = (".num_batches_tracked", "n_averaged")
"""Ends of keys that only count updates; no output depends on them."""
PROFILED = ("total_ops", "total_params")
"""Last parts of keys that profilers of operations (thop) leave in a model; no output depends on them."""
LISTED = 2
"""Most keys that a note lists."""


def compare(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Misfit:
    """The keys that are missing, unexpected, of another shape, or whole numbers in place of weights."""
    shared = [key for key in wanted if key in weights]
    return Misfit(
        missing=[key for key in wanted if key not in weights],
        unexpected=[key for key in weights if key not in wanted],
        reshaped=[key for key in shared if weights[key].shape != wanted[key].shape],
        whole=[key for key in shared if wanted[key].is_floating_point() and not weights[key].is_floating_point()],
    )


@dataclass(frozen=True, slots=True)
class Fitted:
    """Weights under the names of a model, as far as they have its names."""

    weights: Weights
    notes: tuple[str, ...]
    """What was taken off and what was left out, a sentence each."""


def fitted(checkpoint: Checkpoint, wanted: Mapping[str, Tensor], *, head: Sequence[str] = ()) -> Fitted:
    """Give weights the model's names: prefixes of wrappers are taken off, and counters are left out or added.

    If the model's keys are in the file under one more prefix, this is taken off too, and keys without it are left out.
    Layers of `head` may be of other shapes. Raises ModelError if there are several such prefixes.
    """
    weights = without_prefixes(checkpoint.weights, wanted)
    profiled = [key for key in weights if key.rpartition(".")[2] in PROFILED and key not in wanted]
    notes = [*checkpoint.notes, *_left_out("numbers of a profiler", profiled)]
    weights = {key: value for key, value in weights.items() if key not in profiled}
    prefix = _model_prefix(checkpoint.path, weights, wanted, head)
    if prefix:
        others = [key for key in weights if not key.startswith(prefix) and not key.endswith(COUNTERS)]
        notes += [f"the prefix {prefix!r} was taken off", *_left_out("keys without it", others)]
        weights = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    return Fitted(_with_counters(weights, wanted), tuple(notes))


def _left_out(what: str, keys: Sequence[str]) -> list[str]:
    shown = ", ".join(keys[:LISTED]) + (", ..." if len(keys) > LISTED else "")
    return [f"{what} were left out: {len(keys)}, such as {shown}"] if keys else []


def without_prefixes(weights: Weights, wanted: Mapping[str, Tensor]) -> Weights:
    """The weights without the prefixes that wrappers add to every key, unless the model's own keys have them."""
    while prefix := _shared_prefix(weights, wanted):
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def _shared_prefix(weights: Weights, wanted: Mapping[str, Tensor]) -> str | None:
    keys = [key for key in weights if not key.endswith(COUNTERS)]
    if any(key in wanted for key in keys):
        return None
    return next((prefix for prefix in PREFIXES if keys and all(key.startswith(prefix) for key in keys)), None)


def _model_prefix(path: Path, weights: Weights, wanted: Mapping[str, Tensor], head: Sequence[str]) -> str | None:
    """The prefix under which the file has every key of the model; None if it has them without, or lacks some."""
    names = [key for key in wanted if not key.endswith(COUNTERS)]
    if not names or any(key in weights for key in names):
        return None
    first = names[0]
    prefixes = [key.removesuffix(first) for key in weights if key.endswith(f".{first}")]
    whole = [prefix for prefix in prefixes if all(prefix + key in weights for key in names)]
    if len(whole) > 1:
        whole = [prefix for prefix in whole if _fits(weights, prefix, wanted, head)] or whole
    if len(whole) > 1:
        raise ModelError(
            f"checkpoint {path}: {len(whole)} networks in it fit: their keys begin with "
            f"{', '.join(map(repr, whole))}; want one; `hardray import-teacher` chooses, for example with "
            f"--rename '^{whole[0]}=' --rename '^{whole[1]}.*='"
        )
    return whole[0] if whole else None


def _fits(weights: Weights, prefix: str, wanted: Mapping[str, Tensor], head: Sequence[str]) -> bool:
    """Whether the keys with a prefix are exactly the model's, with the same shapes outside of the head."""
    part = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    misfit = compare(_with_counters(part, wanted), wanted)
    return not (misfit.missing or misfit.unexpected) and all(layer_of(key) in head for key in misfit.reshaped)


def _with_counters(weights: Weights, wanted: Mapping[str, Tensor]) -> Weights:
    """The weights with the model's own counters of updates where they lack them, and without counters it lacks."""
    counters = {key: value for key, value in wanted.items() if key.endswith(COUNTERS)}  # since torch 0.4.1
    return counters | {key: value for key, value in weights.items() if key in wanted or not key.endswith(COUNTERS)}


def layer_of(key: str) -> str:
    """The layer that a tensor belongs to, by its key."""
    return key.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What happened when weights were loaded."""

    has_new_head: bool
    """Whether any layer of the head kept the model's own weights."""
    notes: tuple[str, ...]
    """What was chosen, taken off and left out, a sentence each."""


def load_weights(model: nn.Module, path: Path, *, role: str, head: Sequence[str] = ()) -> Loaded:
    """Load a file's weights into `model`.

    Every key must be there with its shape, except that layers of `head` keep the model's own weights if the file's are
    of another shape, or not there. Messages call the model `role`; a ModelError names what is missing, unexpected and
    of another shape, its likely cause, and what to do.
    """
    wanted = model.state_dict()
    checkpoint = read_checkpoint(path)
    found = fitted(checkpoint, wanted, head=head)
    differs = compare(found.weights, wanted)
    own = {key: wanted[key] for key in (*differs.reshaped, *differs.missing) if layer_of(key) in head}
    weights = found.weights | own
    misfit = compare(weights, wanted)
    if misfit:
        lines = explained(misfit, weights, model, remedies=Remedies.of(role), architecture=checkpoint.architecture)
        raise ModelError("\n  ".join([f"checkpoint {path} does not fit {role}.model:", *lines]))
    with torch.no_grad():
        model.load_state_dict(weights)
    return Loaded(bool(own), found.notes)


def add_weights(digest: hashlib._Hash, module: nn.Module) -> None:
    """Add every tensor of a module's state to a hash, with its name, type and shape."""
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
