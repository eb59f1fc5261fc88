"""Read weights from safetensors, or from torch files without unpickling anything but tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import Tensor, nn

from hard_ray.errors import ModelError

WRAPPERS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep the weights; moving averages come first, because they are evaluated."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""Prefixes that wrappers around a module add to every key."""
COUNTERS = (".num_batches_tracked", "n_averaged")
"""Ends of keys that only count updates; no output depends on them."""

Weights = dict[str, Tensor]


def read_weights(path: Path) -> Weights:
    """Read a state dict, without what scripts and wrappers put around it; raises ModelError if there is none."""
    if not path.is_file():
        raise ModelError(f"checkpoint {path}: there is no such file")
    try:
        content = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # a damaged file can make torch's reader raise almost any error
        raise ModelError(
            f"checkpoint {path}: cannot be read as weights ({_first_sentence(error)}); "
            "want a safetensors file, or a torch file that holds tensors only"
        ) from None
    found = _unwrapped(content)
    if not isinstance(found, Mapping) or not found:
        raise ModelError(f"checkpoint {path}: holds no state dict, such as torch.save(model.state_dict(), PATH) writes")
    if not all(isinstance(key, str) for key in found):
        raise ModelError(f"checkpoint {path}: holds a table whose keys are not names of tensors; want a state dict")
    weights: Weights = clean_state_dict(dict(found))
    strangers = [key for key, value in weights.items() if not isinstance(value, Tensor)]
    if strangers:
        raise ModelError(
            f"checkpoint {path}: the entry {strangers[0]!r} is not a tensor; want a state dict, such as "
            "torch.save(model.state_dict(), PATH) writes"
        )
    return weights


def _unwrapped(content: Any) -> Any:
    while isinstance(content, Mapping):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            return content
        content = inner
    return content


@dataclass(frozen=True, slots=True)
class Misfit:
    """Keys by which weights and a model differ, in the model's order, or the file's if the model lacks them."""

    missing: list[str]
    unexpected: list[str]
    reshaped: list[str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.reshaped)


def compare(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Misfit:
    """The keys that are missing, unexpected, or of another shape."""
    return Misfit(
        missing=[key for key in wanted if key not in weights],
        unexpected=[key for key in weights if key not in wanted],
        reshaped=[key for key in wanted if key in weights and weights[key].shape != wanted[key].shape],
    )


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


def with_counters(weights: Weights, wanted: Mapping[str, Tensor]) -> Weights:
    """The weights with the model's own counters of updates where they lack them, and without counters it lacks."""
    counters = {key: value for key, value in wanted.items() if key.endswith(COUNTERS)}  # since torch 0.4.1
    return counters | {key: value for key, value in weights.items() if key in wanted or not key.endswith(COUNTERS)}


def load_weights(model: nn.Module, path: Path, *, role: str, head: Sequence[str] = ()) -> bool:
    """Load a file's weights into `model`, and return whether any layer of `head` kept its own.

    Every key must be there with its shape, except that layers of `head` keep the model's own weights if the file's are
    of another shape. Messages call the model `role`; a ModelError names the first missing, unexpected and wrongly
    shaped key.
    """
    wanted = model.state_dict()
    weights = with_counters(without_prefixes(read_weights(path), wanted), wanted)
    own = {key: wanted[key] for key in compare(weights, wanted).reshaped if key.rpartition(".")[0] in head}
    weights |= own
    misfit = compare(weights, wanted)
    if misfit:
        lines = [f"checkpoint {path} does not fit {role}.model:"]
        lines += [_finding("missing", misfit.missing)] if misfit.missing else []
        lines += [_finding("unexpected", misfit.unexpected)] if misfit.unexpected else []
        if misfit.reshaped:
            lines.append(_finding("of another shape", misfit.reshaped, shapes(misfit.reshaped[0], weights, wanted)))
        if misfit.unexpected:
            lines.append("`hardray import-teacher` renames keys, and lists all that do not fit")
        raise ModelError("\n  ".join(lines))
    with torch.no_grad():
        model.load_state_dict(weights)
    return bool(own)


def add_weights(digest: hashlib._Hash, module: nn.Module) -> None:
    """Add every tensor of a module's state to a hash, with its name, type and shape."""
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())


def shapes(key: str, weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Both shapes of a key, in words."""
    return f"{tuple(weights[key].shape)} in the file, {tuple(wanted[key].shape)} in the model"


def _finding(what: str, keys: list[str], detail: str = "") -> str:
    count = f"{len(keys)} key{'s' if len(keys) > 1 else ''} {what}, first {keys[0]!r}"
    return f"{count} ({detail})" if detail else count


def _first_sentence(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text.splitlines()[0].split(". ")[0]
