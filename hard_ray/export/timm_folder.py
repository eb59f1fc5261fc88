"""A network that timm loads: `model.safetensors`, `config.json` and a model card."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from timm.models import save_for_hf

from hard_ray.config.data import DataConfig
from hard_ray.export.backbone import FACTS, PROJECTION, projection_code, token_text, write_projection
from hard_ray.export.card_text import card_text
from hard_ray.files import read_json, replacing_folder, write_text
from hard_ray.networks.embedding import split
from hard_ray.networks.network import ImageSpec, Network
from hard_ray.networks.tokens import TokenAnswer, token_projection

TRAINING_IMAGES = "training_images"
"""Key of the number of training images in `config.json`."""


@dataclass(frozen=True, slots=True)
class EvalView:
    """The evaluation view in timm's terms: the transform from a picture to the network's input."""

    crop_pct: float = 1.0
    """The share of the shorter side that is kept."""
    crop_mode: str | None = None
    """`center` crops and keeps the aspect ratio, `squash` keeps the whole picture; None: the architecture's own."""
    interpolation: str | None = None
    """How pictures are resized; None: the architecture's own."""


@dataclass(frozen=True, slots=True)
class TrainingFacts:
    """Facts about a student's training, for its model card and its `config.json`."""

    data: str
    """A description of the data set."""
    training_images: int
    teacher: str
    """Its model, or "none"."""
    objective: str
    augmentor: str
    updates: int
    view: EvalView
    """The transform from pictures to its input that it was measured with."""
    has_labels: bool = True
    """Whether its outputs are classes of labels; otherwise they are the teacher's answers."""


def timm_view(data: DataConfig) -> EvalView:
    """Describe `hard_ray.data.views.eval_view` so that timm's evaluation transform does the same."""
    is_whole = data.crop in ("none", "padded") and data.crop_pct == 1.0
    return EvalView(data.crop_pct, "squash" if is_whole else "center", data.interpolation)


def export_network(network: Network, folder: Path, *, images: ImageSpec, facts: TrainingFacts) -> None:
    """Write a student in timm's layout, with the facts of its training; the folder is replaced in one step.

    Of a student of an embedding it holds the backbone, without classes, and the projection beside it.
    """
    kept: dict[str, Any] = {TRAINING_IMAGES: facts.training_images}
    if network.dimension is None:
        card = _card(network, images, facts)
        write_timm_folder(network, folder, images=images, names=images.classes, view=facts.view, card=card, facts=kept)
        return
    backbone, projection = split(network)
    facts = replace(facts, teacher=_without_path(facts.teacher))  # exports are published
    kept[FACTS] = {"dimension": network.dimension, "teacher": facts.teacher}
    if network.tokens is not None:
        kept[FACTS]["tokens"] = network.tokens.facts()
    with replacing_folder(folder) as temporary:
        write_timm_files(backbone, temporary, images=images, names=None, view=facts.view, facts=kept)
        write_projection(projection, temporary, tokens=token_projection(network.model))
        write_text(temporary / "README.md", _backbone_card(backbone, network.dimension, images, facts, network.tokens))


def training_images(folders: Iterable[Path]) -> int | None:
    """The number of training images, from the first of a run's exports that has it; None: none has.

    `config.json` holds it; exports of earlier versions have it in their model card alone.
    """
    for folder in folders:
        with contextlib.suppress(ValueError, KeyError):  # a damaged file, or one of an earlier version
            return int(read_json(folder / "config.json", {})[TRAINING_IMAGES])
        card = folder / "README.md"
        found = re.search(r"([\d,]+) training images", card.read_text(encoding="utf-8")) if card.is_file() else None
        if found is not None:
            return int(found[1].replace(",", ""))
    return None


def write_timm_folder(
    network: Network,
    folder: Path,
    *,
    images: ImageSpec,
    names: Sequence[str] | None,
    view: EvalView,
    card: str,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write a network in timm's layout; the folder is replaced in one step.

    `timm.create_model("local-dir:FOLDER", pretrained=True)` loads it. For hardray's own architectures,
    `import hard_ray.networks` comes first.

    Args:
        network: weights and input contract.
        folder: the folder to write.
        images: the images that the network takes.
        names: the classes in the order of the outputs; None: they are unknown, and are not compared.
        view: the transform from a picture to the network's input.
        card: the text of `README.md`.
        facts: other values for `config.json`.
    """
    with replacing_folder(folder) as temporary:
        write_timm_files(network, temporary, images=images, names=names, view=view, facts=facts)
        write_text(temporary / "README.md", card)


def write_timm_files(
    network: Network,
    folder: Path,
    *,
    images: ImageSpec,
    names: Sequence[str] | None,
    view: EvalView,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write `model.safetensors` and `config.json` into an existing folder; see `write_timm_folder`."""
    contract = network.contract
    seen = (images.img_size, images.img_size)
    size = contract.size or seen
    # images of another size are resized inside the network, and only its own interpolation reproduces its logits
    interpolation = (view.interpolation if size == seen else None) or contract.interpolation
    plain = copy.deepcopy(network.model).to(memory_format=torch.contiguous_format)  # safetensors takes no other layout
    save_for_hf(
        plain,
        str(folder),
        model_config={**facts} if names is None else {**facts, "label_names": list(names)},
        data_config={
            "input_size": (images.in_chans, *size),
            "mean": list(contract.mean),
            "std": list(contract.std),
            "interpolation": interpolation,
            "crop_pct": view.crop_pct,
            "crop_mode": view.crop_mode,
        },
        safe_serialization=True,
    )


def _without_path(model: str) -> str:
    """The name of a model; of a folder the last part alone."""
    kind, _, path = model.partition(":")
    return f"{kind}:{Path(path).name}" if kind == "local-dir" else model


def _backbone_card(
    backbone: Network, dimension: int, images: ImageSpec, facts: TrainingFacts, tokens: TokenAnswer | None
) -> str:
    what = (
        f"A backbone without classes, whose linear projection learned the embedding of {facts.teacher} with hardray."
        f" `{PROJECTION}` is that projection, to {dimension:,} values."
    )
    if tokens is not None:
        what = f"{what} {token_text(tokens)}"
    text = card_text(backbone, images, what=what, facts=_rows(facts), has_classes=False)
    return f"{text}\n{projection_code(dimension, tokens)}\n"


def _card(network: Network, images: ImageSpec, facts: TrainingFacts) -> str:
    how = "on labels" if facts.teacher == "none" else "by knowledge distillation"
    count = len(images.classes)
    what = f"An image classifier with {count} classes, trained {how} with hardray"
    if not facts.has_labels:
        what = f"A network with {count} outputs, those of its teacher, trained {how} with hardray without labels"
    return card_text(network, images, what=f"{what}.", facts=_rows(facts))


def _rows(facts: TrainingFacts) -> dict[str, str]:
    return {
        "data": f"{facts.data}, {facts.training_images:,} training images",
        "teacher": facts.teacher,
        "objective": facts.objective,
        "augmentor": facts.augmentor,
        "student updates": f"{facts.updates:,}",
    }
