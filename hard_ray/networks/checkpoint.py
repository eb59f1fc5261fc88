"""Read the weights in a file, whatever a training script put around them; nothing in a file is ever run.

Torch files are read by torch's own reader of weights, which makes tensors, tables and numbers alone.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import Tensor

from hard_ray.errors import ModelError
from hard_ray.networks.file_kinds import AGAIN, SAVE, WANTED, FileKind, file_kind, no_weights, path_problem
from hard_ray.networks.stands import STANDS, Stand

AVERAGES = ("state_dict_ema", "model_ema", "ema", "ema_state_dict", "model_ema_state_dict", "params_ema")
"""Keys of moving averages of the weights; they come first, because they are evaluated."""
WRAPPERS = (*AVERAGES, "state_dict", "model_state_dict", "model", "params")
"""Keys under which training scripts keep the weights."""
INNER = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts of names that torch.compile, FSDP and activation checkpointing add, at any level."""
NAMED = 3
"""Most names that a message lists."""

Weights = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The weights of a file."""

    path: Path
    weights: Weights
    notes: tuple[str, ...] = ()
    """What was chosen and what was left out, a sentence each."""
    architecture: str | None = None
    """The model's name as the training script noted it."""


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file's weights, without what scripts and wrappers put around them; ModelError: it has none.

    The content decides how the file is read, whatever its name. The message says what the file is, and what to do.
    """
    kind = path_problem(path)
    try:
        kind = kind or file_kind(path)
        if kind.problem:
            raise _refusal(path, kind)
        content = load_file(path) if kind.format == "safetensors" else _torch_content(path)
    except ModelError:
        raise
    except Exception as error:  # a damaged file can make either reader raise almost any error
        raise _refusal(path, _reason(path, error)) from None
    notes: list[str] = []
    found = _unwrapped(path, content, notes)
    weights = _tensors(path, found, notes)
    _check_values(path, weights)
    return Checkpoint(path, clean_state_dict(_unwrapped_names(weights)), tuple(notes), _architecture(content))


def _torch_content(path: Path) -> Any:
    with warnings.catch_warnings(), torch.serialization.safe_globals(STANDS), path.open("rb") as stream:
        warnings.simplefilter("ignore")
        return torch.load(stream, map_location="cpu", weights_only=True)  # by a path, torch would go by the suffix


def _refusal(path: Path, kind: FileKind) -> ModelError:
    return ModelError(f"checkpoint {path}: cannot be read as weights: {kind.problem}; {WANTED}; {kind.remedy}")


def _reason(path: Path, error: BaseException) -> FileKind:
    """Why a reader gave up."""
    if isinstance(error, OSError) and error.strerror:
        return no_weights(f"it cannot be opened ({error.strerror})", "allow it, or name another file")
    text = " ".join(str(error).split())
    foreign = _foreign_types(path, text)
    if foreign:
        return _of_objects(foreign)
    if "Unsupported operand" in text:
        return no_weights(
            "it was written with a pickle protocol other than torch.save's own",
            "save it without pickle_protocol, or as safetensors",
        )
    said = text.split(". ")[0] or type(error).__name__
    return no_weights(f"it is damaged ({said[:160]})", AGAIN)


def _foreign_types(path: Path, text: str) -> list[str]:
    """The types in a torch file that are neither tensors nor known to be harmless; names alone, nothing is made."""
    try:
        with torch.serialization.safe_globals(STANDS):
            found = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # the older format, or a damaged file
        found = []
    return found or re.findall(r"GLOBAL ([\w.]+)", text)[:1]


_LAYERS = ("torch.nn.modules.", "torch.nn.parallel.", "timm.", "torchvision.models.")


def _of_objects(types: list[str]) -> FileKind:
    """The kind of a torch file that can only be read by making objects of other types."""
    modules = [name for name in types if name.startswith(_LAYERS)]
    named = ", ".join((modules or types)[:NAMED])
    more = f" and {len(modules or types) - NAMED} more" if len(modules or types) > NAMED else ""
    if modules:
        return no_weights(
            f"it holds a whole model as Python objects ({named}{more}), which would have to be run",
            SAVE,
        )
    return no_weights(
        f"it holds Python objects of the type{'s' if len(types) > 1 else ''} {named}{more}, which would have to be run",
        SAVE,
    )


def _unwrapped(path: Path, content: Any, notes: list[str]) -> Mapping[Any, Any]:
    """The table of the weights within the tables around it."""
    while isinstance(content, Mapping):
        names = [key for key in WRAPPERS if isinstance(content.get(key), Mapping) and content[key]]
        if names and names[0] in AVERAGES and len(names) > 1:
            left = ", ".join(repr(name) for name in names[1:])
            notes.append(f"the weights are the moving average {names[0]!r}; {left} is left out")
        name = names[0] if names else _only_table(path, content, notes)
        if name is None:
            break
        content = content[name]
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"checkpoint {path}: holds no state dict: it is {_described(content)}; {WANTED}")
    return content


def _only_table(path: Path, content: Mapping[Any, Any], notes: list[str]) -> Any:
    """The key of the one table of tensors, where there are no tensors beside it; None if there is none."""
    if any(isinstance(value, Tensor) and value.ndim for value in content.values()):
        return None
    tables = [key for key, value in content.items() if _is_state(value)]
    if len(tables) > 1:
        raise ModelError(
            f"checkpoint {path}: holds several state dicts: {', '.join(map(repr, tables))}; want one; save it alone: "
            f"torch.save(torch.load(FILE)[{tables[0]!r}], NEW_FILE)"
        )
    if tables:
        notes.append(f"the weights are the entry {tables[0]!r} of the file")
    return tables[0] if tables else None


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(part, Tensor) for part in value.values())


def _described(content: Any) -> str:
    if isinstance(content, Tensor):
        return f"one tensor of shape {tuple(content.shape)}"
    if isinstance(content, Mapping):
        return f"a table of {len(content)} entries" if content else "an empty table"
    kinds = {Stand: "an object", list: "a list", str: "a text", int: "a number", float: "a number"}
    return kinds.get(type(content), f"of the type {type(content).__name__}")


def _tensors(path: Path, found: Mapping[Any, Any], notes: list[str]) -> Weights:
    """The tensors of a table; what else is in it is left out, and noted."""
    if not all(isinstance(key, str) for key in found):
        raise ModelError(
            f"checkpoint {path}: holds a table whose keys are not names of tensors, such as "
            f"{next(key for key in found if not isinstance(key, str))!r}; {WANTED}"
        )
    weights = {key: value for key, value in found.items() if isinstance(value, Tensor)}
    strangers = [key for key in found if key not in weights]
    if not weights or any(isinstance(found[key], Mapping) and found[key] for key in strangers if weights):
        first = strangers[0]
        raise ModelError(
            f"checkpoint {path}: holds no state dict: the entry {first!r} is not a tensor but "
            f"{_described(found[first])}; {WANTED}"
        )
    if strangers:
        notes.append(f"left out as no tensors: {_counted(strangers, 'entry', 'entries')}")
    return weights


def _unwrapped_names(weights: Weights) -> Weights:
    """The weights under names without the parts that wrappers around inner modules add."""
    return {".".join(part for part in key.split(".") if part not in INNER): value for key, value in weights.items()}


def _counted(names: list[str], one: str, many: str) -> str:
    """`3 entries ('a', 'b', 'c')`."""
    shown = ", ".join(repr(name) for name in names[:NAMED])
    return f"{len(names)} {one if len(names) == 1 else many} ({shown}{', ...' if len(names) > NAMED else ''})"


def _check_values(path: Path, weights: Weights) -> None:
    """Refuse tensors without values, and values that are not finite."""
    for key, value in weights.items():
        if value.is_meta or value.layout is not torch.strided or value.is_quantized:
            what = "no values" if value.is_meta else "quantised values" if value.is_quantized else "sparse values"
            raise ModelError(
                f"checkpoint {path}: the tensor {key!r} has {what}; want dense floating-point weights; save "
                "model.state_dict() of the model that this file was made from"
            )
    broken = [key for key, value in weights.items() if _is_broken(key, value)]
    if broken:
        raise ModelError(
            f"checkpoint {path}: {_counted(broken, 'tensor', 'tensors')} with values that are not finite, as a "
            "training leaves them that diverged; want finite weights; take an earlier checkpoint"
        )


def _is_broken(key: str, value: Tensor) -> bool:
    """Whether a value is not finite; a mask may hold infinities, and a byte of 8 bits is not looked into."""
    if not value.is_floating_point() or value.element_size() == 1:
        return False
    return bool(value.isnan().any() if "mask" in key else not value.isfinite().all())


def _architecture(content: Any) -> str | None:
    """The architecture that a training script noted beside the weights, as timm's and torchvision's do."""
    if not isinstance(content, Mapping):
        return None
    args = content.get("args")
    noted = args.state if isinstance(args, Stand) else args if isinstance(args, Mapping) else {}
    name = content.get("arch") or noted.get("model") or noted.get("arch")
    return name if isinstance(name, str) else None
