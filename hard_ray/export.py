"""A network that timm loads: `model.safetensors`, `config.json` and a model card."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from timm.models import save_for_hf

from hard_ray.networks.network import ImageSpec, Network
from hard_ray.run_folder import replacing_folder, write_text


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the model card says beside the architecture."""

    data: str
    teacher: str
    """Its model, or "none"."""
    objective: str
    augmentor: str
    updates: int
    crop_pct: float


def export_network(network: Network, folder: Path, *, images: ImageSpec, card: ModelCard) -> None:
    """Write a student in timm's layout; the folder is replaced in one step."""
    text = _card(network, images, card)
    write_timm_folder(network, folder, images=images, names=images.classes, crop_pct=card.crop_pct, card=text)


def write_timm_folder(
    network: Network,
    folder: Path,
    *,
    images: ImageSpec,
    names: Sequence[str] | None,
    crop_pct: float,
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
        crop_pct: the share of the shorter side that the evaluation view keeps.
        card: what `README.md` says.
    """
    contract = network.contract
    size = contract.size or (images.img_size, images.img_size)
    plain = copy.deepcopy(network.model).to(memory_format=torch.contiguous_format)  # safetensors takes no other layout
    with replacing_folder(folder) as temporary:
        save_for_hf(
            plain,
            str(temporary),
            model_config={} if names is None else {"label_names": list(names)},
            data_config={
                "input_size": (images.in_chans, *size),
                "mean": list(contract.mean),
                "std": list(contract.std),
                "interpolation": contract.interpolation,
                "crop_pct": crop_pct,
            },
            safe_serialization=True,
        )
        write_text(temporary / "README.md", card)


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


def model_card(network: Network, images: ImageSpec, *, what: str, facts: Mapping[str, str]) -> str:
    """The text of a model card: what it is, the facts as a table, and how timm loads it."""
    own = type(network.model).__module__.startswith("hard_ray.")
    imports = "import timm\nimport hard_ray.networks  # registers the architecture\n" if own else "import timm\n"
    parameters = sum(parameter.numel() for parameter in network.model.parameters())
    rows = "\n".join(f"| {name} | {fact} |" for name, fact in facts.items())
    return f"""---
tags:
- image-classification
- timm
library_name: timm
---
# {network.architecture}

{what}

| | |
|---|---|
| parameters | {parameters:,} |
| input | {images.in_chans} x {images.img_size} x {images.img_size} |
| mean, std | {network.contract.mean}, {network.contract.std} |
{rows}

```python
{imports}
model = timm.create_model("local-dir:PATH", pretrained=True).eval()
```
"""
