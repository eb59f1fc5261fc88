"""Reading weights: safetensors, or torch files without unpickling anything but tensors."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from timm.models import load_state_dict
from torch import Tensor, nn

from hard_ray.errors import ModelError


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict; `state_dict`, `model` and `module.` wrappers are taken off.

    Raises:
        ModelError: there is no such file, or it holds something other than tensors.
    """
    if not path.is_file():
        raise ModelError(f"checkpoint {path}: there is no such file")
    try:
        weights = load_state_dict(str(path), use_ema=True, weights_only=True)
    except (RuntimeError, SafetensorError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        raise ModelError(
            f"checkpoint {path}: cannot be read as weights ({_first_sentence(error)}); "
            "want a safetensors file, or a torch file that holds tensors only"
        ) from None
    strangers = [key for key, value in weights.items() if not isinstance(value, Tensor)]
    if strangers:
        raise ModelError(
            f"checkpoint {path}: the entry {strangers[0]!r} is no tensor; want a state dict, such as "
            "torch.save(model.state_dict(), PATH) writes"
        )
    return weights


def load_weights(model: nn.Module, path: Path, *, role: str) -> None:
    """Load `path` into `model`; every key must be there with its shape.

    Raises:
        ModelError: names the first missing, unexpected and wrongly shaped key.
    """
    weights = read_weights(path)
    wanted = model.state_dict()
    for key in wanted:
        if key.endswith(".num_batches_tracked"):  # files older than torch 0.4.1 lack it; nothing depends on it
            weights.setdefault(key, wanted[key])
    missing = [key for key in wanted if key not in weights]
    unexpected = [key for key in weights if key not in wanted]
    reshaped = [key for key in wanted if key in weights and weights[key].shape != wanted[key].shape]
    if missing or unexpected or reshaped:
        lines = [f"checkpoint {path} does not fit {role}.model:"]
        lines += [_finding("missing", missing)] if missing else []
        lines += [_finding("unexpected", unexpected)] if unexpected else []
        if reshaped:
            key = reshaped[0]
            shapes = f"{tuple(weights[key].shape)} in the file, {tuple(wanted[key].shape)} in the model"
            lines.append(_finding("of another shape", reshaped, shapes))
        raise ModelError("\n  ".join(lines))
    with torch.no_grad():
        model.load_state_dict(weights)


def add_weights(digest: hashlib._Hash, module: nn.Module) -> None:
    """Hash every tensor of a module's state, with its name, type and shape."""
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())


def _finding(what: str, keys: list[str], detail: str = "") -> str:
    count = f"{len(keys)} key{'s' if len(keys) > 1 else ''} {what}, first {keys[0]!r}"
    return f"{count} ({detail})" if detail else count


def _first_sentence(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text.splitlines()[0].split(". ")[0]
