"""Whether a model's outputs are classes, or features without a meaning of their own."""

from __future__ import annotations

from typing import Any

from timm.models import get_pretrained_cfg
from torch import nn

from hard_ray.errors import ModelError, command_line

CLASS_COUNTS = (1000, 11221, 11821, 19168, 21841, 21842, 21843, 115217)
"""Classes of the sets that timm's own weights classify: ImageNet-1k, parts and versions of ImageNet-22k, Bamboo."""


def embedding_axes(model: nn.Module) -> int | None:
    """The number of outputs that are no classes; None: they are classes, or may be.

    They are none if there are no outputs, or if weights of timm have as many outputs as timm published them with and
    that is the number of classes of no set: CLIP's towers project to 512, 768 or 1,024 axes. Weights that name their
    classes have classes.
    """
    cfg: dict[str, Any] = dict(getattr(model, "pretrained_cfg", None) or {})
    count = int(model.num_classes)  # type: ignore[arg-type]
    if count == 0:
        return 0
    if cfg.get("label_names") or not cfg.get("tag") or count in CLASS_COUNTS:
        return None
    try:
        published = get_pretrained_cfg(f"{cfg.get('architecture')}.{cfg['tag']}")
    except RuntimeError:  # timm does not know the tag
        return None
    known = published is not None and published.has_weights and published.num_classes == count
    return count if known else None


def check_classes(model: nn.Module, name: str) -> None:
    """Raise a ModelError if the outputs of a teacher with timm's weights are no classes."""
    axes = embedding_axes(model)
    if axes is None:
        return
    found = "has no class head" if axes == 0 else f"has {axes} outputs, which are axes of an embedding and no classes"
    command = command_line("fit-head", "--kind", "probe", "--tower", name)
    raise ModelError(
        f"teacher.model {name} {found}; want a teacher with an output for each class; put a head on it with "
        f"`{command}` (or --kind prototypes, zero-shot) and give teacher.model=local-dir:FOLDER, or name its outputs "
        "in teacher.class_map if they are classes"
    )
