"""Zero-shot heads: class names as CLIP's text tower sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hard_ray.config.heads import ZeroShotHead
from hard_ray.errors import ModelError
from hard_ray.networks.class_names import read_names
from hard_ray.networks.towers import Head
from hard_ray.preparation.clip_towers import Clip, open_clip_model
from hard_ray.preparation.heads import FittedHead
from hard_ray.storage.address import is_url


@dataclass(frozen=True, slots=True)
class ZeroShot:
    """CLIP's image tower, and the head of its texts."""

    clip: Clip
    fitted: FittedHead
    names: tuple[str, ...]


def class_names(head: ZeroShotHead, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The names in the file; raises ModelError if it has fewer than two, or others than `wanted`, the data's."""
    names = read_names(head.classes if is_url(head.classes) else Path(head.classes).expanduser(), "--classes")
    if len(names) < 2:
        raise ModelError(f"--classes {head.classes}: names one class; want two or more; add the others, one a line")
    if wanted is None or tuple(wanted) == names:
        return names
    if len(names) != len(wanted):
        found = f"names {len(names)} classes, the data have {len(wanted)}"
    else:
        place = next(place for place, (name, other) in enumerate(zip(names, wanted, strict=True)) if name != other)
        found = f"has {names[place]!r} in line {place + 1}, where the data have {wanted[place]!r}"
    raise ModelError(
        f"--classes {head.classes}: {found}; want the data's classes in their order; write them so, one a line, or "
        "leave --data out"
    )


def fit_zero_shot(
    model: str, head: ZeroShotHead, say: Callable[[str], None], *, wanted: Sequence[str] | None = None
) -> ZeroShot:
    """Make a head of class names; `wanted` are the classes of the data, if there are data.

    Logits are open_clip's own: cosines of image and text features times the model's scale, and SigLIP's bias. Raises
    ModelError if the names or the model cannot be used.
    """
    names = class_names(head, wanted)
    clip = open_clip_model(model)
    say(f"{len(names)} classes in {len(head.prompts)} prompts each, by the text tower of {model}")
    weight = clip.directions(names, head.prompts)
    facts = {"kind": head.kind, "scale": clip.scale, "bias": clip.bias, "prompts": list(head.prompts)}
    fitted = Head(weight.clone(), torch.full((len(names),), clip.bias), clip.scale)
    return ZeroShot(clip, FittedHead(fitted, facts), names)
