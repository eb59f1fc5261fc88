"""A network that timm loads: `model.safetensors`, `config.json` and a model card."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from timm.models import save_for_hf

from hard_ray.config.data import DataConfig
from hard_ray.export.card_text import model_card
from hard_ray.files import replacing_folder, write_text
from hard_ray.networks.network import ImageSpec, Network


@dataclass(frozen=True, slots=True)
class EvalView:
    """The evaluation view in timm's words: how a picture becomes the network's input."""

    crop_pct: float = 1.0
    """The share of the shorter side that is kept."""
    crop_mode: str | None = None
    """`center` keeps the shape of what is seen, `squash` the whole picture; None: the architecture's own."""
    interpolation: str | None = None
    """How pictures are resized; None: the architecture's own."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the model card says beside the architecture."""

    data: str
    teacher: str
    """Its model, or "none"."""
    objective: str
    augmentor: str
    updates: int
    view: EvalView
    """How the pictures that it was measured on became its input."""


def timm_view(data: DataConfig) -> EvalView:
    """What `hard_ray.data.views.eval_view` does, as timm's evaluation transform does it too."""
    is_whole = data.crop in ("none", "padded") and data.crop_pct == 1.0
    return EvalView(data.crop_pct, "squash" if is_whole else "center", data.interpolation)


def export_network(network: Network, folder: Path, *, images: ImageSpec, card: ModelCard) -> None:
    """Write a student in timm's layout; the folder is replaced in one step."""
    text = _card(network, images, card)
    write_timm_folder(network, folder, images=images, names=images.classes, view=card.view, card=text)


def write_timm_folder(
    network: Network,
    folder: Path,
    *,
    images: ImageSpec,
    names: Sequence[str] | None,
    view: EvalView,
    card: str,
) -> None:
    """Write a network in timm's layout; the folder is replaced in one step.

    `timm.create_model("local-dir:FOLDER", pretrained=True)` loads it. For hardray's own architectures,
    `import hard_ray.networks` comes first.

    Args:
        network: weights and input contract.
        folder: the place.
        images: what it is made for.
        names: the classes in the order of the outputs; None: they are not known, and will not be compared.
        view: how a picture becomes the network's input.
        card: what `README.md` says.
    """
    with replacing_folder(folder) as temporary:
        write_timm_files(network, temporary, images=images, names=names, view=view)
        write_text(temporary / "README.md", card)


def write_timm_files(
    network: Network, folder: Path, *, images: ImageSpec, names: Sequence[str] | None, view: EvalView
) -> None:
    """Write `model.safetensors` and `config.json` into a folder that is there."""
    contract = network.contract
    seen = (images.img_size, images.img_size)
    size = contract.size or seen
    # of images of another size, the network resizes tensors, and only its own way of doing so gives its answers
    interpolation = (view.interpolation if size == seen else None) or contract.interpolation
    plain = copy.deepcopy(network.model).to(memory_format=torch.contiguous_format)  # safetensors takes no other layout
    save_for_hf(
        plain,
        str(folder),
        model_config={} if names is None else {"label_names": list(names)},
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


def _card(network: Network, images: ImageSpec, card: ModelCard) -> str:
    facts = {
        "data": card.data,
        "teacher": card.teacher,
        "objective": card.objective,
        "augmentor": card.augmentor,
        "student updates": f"{card.updates:,}",
    }
    how = "on labels" if card.teacher == "none" else "by knowledge distillation"
    what = f"An image classifier with {len(images.classes)} classes, trained {how} with hardray."
    return model_card(network, images, what=what, facts=facts)
