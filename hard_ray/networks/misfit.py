"""Explain why weights do not fit a network: which part differs, the likely cause, and what to do."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from hard_ray.networks.checkpoint import Weights

_POSITIONS = re.compile(r"pos_embed|position_embed|relative_position|rel_pos|attn_mask|attention_bias|rope")
"""Keys of tensors whose shape follows from the input size."""
TRIED = 20
"""Most missing keys that are looked for under a prefix."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """Keys by which weights and a model differ, in the model's order, or the file's if the model lacks them."""

    missing: list[str]
    unexpected: list[str]
    reshaped: list[str]
    whole: list[str]
    """Whole numbers in the file where the model has floating-point weights."""

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.reshaped or self.whole)


@dataclass(frozen=True, slots=True)
class Remedies:
    """What messages tell a user to give; each ends where a value follows."""

    model: str = "--model "
    img_size: str = "--img-size "
    in_chans: str = "another --model than one for "
    head: str = "leave --classes out, or name as many as the file has outputs"
    no_head: str = "name weights with one, or give the file to `hardray train-teacher` as teacher.checkpoint"
    rename: str = "--rename"
    listed: int = 12
    """Most keys of one kind that a message lists."""

    @classmethod
    def of(cls, role: str) -> Remedies:
        """The configuration's keys for a network of this role."""
        new = {
            "student": "student.new_head=true gives it a new one",
            "teacher": "`hardray train-teacher` trains a new one",
        }
        head = new | {
            "teacher": (
                "`hardray train-teacher` fine-tunes it with a new one, or teacher.class_map names all outputs of "
                "the file, one a line"
            ),
        }
        return cls(
            model=f"{role}.model=",
            img_size=f"{role}.img_size=",
            in_chans="data.in_chans=",
            head=head.get(role, "name weights for as many classes"),
            no_head=new.get(role, "name weights with one"),
            rename="`hardray import-teacher` with --rename",
            listed=3,
        )


def explained(
    misfit: Misfit,
    weights: Weights,
    model: nn.Module,
    *,
    remedies: Remedies,
    architecture: str | None = None,
) -> list[str]:
    """Lines that say what differs, and last what to do; `architecture` is the file's own note of its model."""
    wanted = model.state_dict()
    kinds = {
        "missing": misfit.missing,
        "unexpected": misfit.unexpected,
        "of whole numbers, as quantised weights are": misfit.whole,
    }
    lines = [_finding(what, keys, remedies.listed) for what, keys in kinds.items() if keys]
    parts = _by_part(misfit.reshaped, weights, wanted, model)
    lines += [_part_line(part, keys, weights, wanted, remedies.listed) for part, keys in parts.items()]
    return [*lines, f"what to do: {_advice(misfit, parts, weights, model, remedies, architecture)}"]


def listed(keys: Sequence[str], most: int) -> str:
    """The first keys, and how many more there are."""
    more = f", ... and {len(keys) - most} more" if len(keys) > most else ""
    return f"{', '.join(keys[:most])}{more}"


def _finding(what: str, keys: Sequence[str], most: int) -> str:
    return f"{len(keys)} {'keys' if len(keys) > 1 else 'key'} {what}: {listed(keys, most)}"


HEAD, POSITION, OTHER = "the class head", "the position embedding", "other layers"
FIRST, FLAT = "the first convolution", "the first layer"


def _by_part(
    keys: Sequence[str], weights: Weights, wanted: Mapping[str, Tensor], model: nn.Module
) -> dict[str, list[str]]:
    """Keys of other shapes by the part of the network that they belong to."""
    parts: dict[str, list[str]] = {}
    for key in keys:
        parts.setdefault(_part(key, weights[key], wanted[key], model), []).append(key)
    return parts


def _part(key: str, found: Tensor, wanted: Tensor, model: nn.Module) -> str:
    layer = key.rpartition(".")[0]
    if layer in settings(model, "classifier") and found.shape[1:] == wanted.shape[1:]:
        return HEAD
    if _POSITIONS.search(key):
        return POSITION
    is_first = layer in settings(model, "first_conv") and found.ndim == wanted.ndim
    if is_first and found.ndim > 1 and found.shape[0] == wanted.shape[0] and found.shape[2:] == wanted.shape[2:]:
        return FIRST if found.ndim == 4 else FLAT
    return OTHER


def settings(model: nn.Module, name: str) -> tuple[str, ...]:
    """The layers that timm's description of a model names, such as its `classifier`; () if there is none."""
    cfg: dict[str, Any] = dict(getattr(model, "pretrained_cfg", None) or {})
    found = cfg.get(name) or ()
    return (found,) if isinstance(found, str) else tuple(found)


def _part_line(part: str, keys: list[str], weights: Weights, wanted: Mapping[str, Tensor], most: int) -> str:
    shown = [
        f"{key} ({tuple(weights[key].shape)} in the file, {tuple(wanted[key].shape)} in the model)" for key in keys
    ]
    where = "" if part == OTHER else f", of {part}"
    return _finding(f"of another shape{where}", shown, most)


def _advice(
    misfit: Misfit,
    parts: Mapping[str, list[str]],
    weights: Weights,
    model: nn.Module,
    remedies: Remedies,
    architecture: str | None,
) -> str:
    """What to do, by the likely cause."""
    own = dict(getattr(model, "pretrained_cfg", None) or {}).get("architecture")
    if architecture and own and architecture.split(".")[0] != own:
        return f"the file notes that it is a {architecture}: {remedies.model}{architecture}"
    if misfit.whole:
        return "name the weights before they were quantised"
    if misfit.missing or misfit.unexpected:
        return _of_names(misfit, model, remedies)
    if OTHER in parts:
        return f"the layers are the same, their widths are not: {remedies.model}ANOTHER"
    return "; ".join(_of_part(part, keys[0], weights, model, remedies) for part, keys in parts.items())


def _of_names(misfit: Misfit, model: nn.Module, remedies: Remedies) -> str:
    """What to do about keys that are missing or unexpected."""
    prefix = _prefix_between(misfit)
    if prefix is not None:
        return f"{remedies.rename} '^{re.escape(prefix)}=' removes the prefix of every key"
    head = settings(model, "classifier")
    if not misfit.unexpected and all(key.rpartition(".")[0] in head for key in misfit.missing):
        return f"the file has no class head: {remedies.no_head}"
    if misfit.missing and misfit.unexpected:
        return (
            f"the file is of another architecture, {remedies.model}ANOTHER, or has other names for the same layers: "
            f"{remedies.rename} 'OLD=NEW' turns unexpected keys into missing ones (OLD is a regular expression; give "
            "it as often as needed)"
        )
    if misfit.missing:
        return (
            f"the file is of a smaller model or of a part of one: {remedies.model}ANOTHER, or name another checkpoint"
        )
    return (
        f"the file is of a larger model, {remedies.model}ANOTHER, or has parts that play no part in answers: "
        f"{remedies.rename} '^KEY.*=' drops them"
    )


def _prefix_between(misfit: Misfit) -> str | None:
    """The prefix that turns most missing keys into unexpected ones; None if there is none."""
    if not misfit.missing:
        return None
    unexpected = set(misfit.unexpected)
    tried = misfit.missing[:TRIED]
    prefixes = {other.removesuffix(key) for key in tried for other in unexpected if other.endswith(f".{key}")}
    count = {prefix: sum(prefix + key in unexpected for key in misfit.missing) for prefix in sorted(prefixes)}
    best = max(count, key=lambda prefix: count[prefix], default=None)
    return best if best is not None and 2 * count[best] > len(misfit.missing) else None


def _of_part(part: str, key: str, weights: Weights, model: nn.Module, remedies: Remedies) -> str:
    """What to do about a part whose shape differs."""
    found, wanted = weights[key], model.state_dict()[key]
    if part == HEAD:
        return f"the head is for {len(found)} classes, and {len(wanted)} are wanted: {remedies.head}"
    if part == FIRST:
        return _of_channels(found.shape[1], wanted.shape[1], remedies)
    if part == FLAT:
        return (
            f"the file takes {found.shape[1]} numbers an image, the model {wanted.shape[1]}: {remedies.img_size}SIZE, "
            "the one that it was trained with, or another number of channels"
        )
    size = _input_size(found, wanted, model)
    if size is None:
        return f"the file is for another input size: {remedies.img_size}SIZE, the one that it was trained with"
    return f"the file is for images of {size} pixels: {remedies.img_size}{size}"


def _of_channels(found: int, wanted: int, remedies: Remedies) -> str:
    takes = f"the file takes images of {found} channels, the model {wanted}"
    return f"{takes}: {remedies.in_chans}{found}" if found in (1, 3) else f"{takes}: name weights for 1 or 3 channels"


def _input_size(found: Tensor, wanted: Tensor, model: nn.Module) -> int | None:
    """The input size that a position embedding of shape (1, places, width) was made for; None if it cannot be told."""
    embed = getattr(model, "patch_embed", None)
    grid, patch = getattr(embed, "grid_size", None), getattr(embed, "patch_size", None)
    if found.ndim != 3 or not grid or not patch or found.shape[2] != wanted.shape[2]:
        return None
    prefix = wanted.shape[1] - math.prod(grid)  # places of class and register tokens
    places = found.shape[1] - prefix
    side = math.isqrt(max(places, 0))
    return side * int(patch[0]) if side and side**2 == places else None
