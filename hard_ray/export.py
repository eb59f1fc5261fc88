"""A student that timm loads: `model.safetensors`, `config.json` and a model card."""

from __future__ import annotations

import copy
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
    objective: str
    augmentor: str
    updates: int
    crop_pct: float


def export_network(network: Network, folder: Path, *, images: ImageSpec, card: ModelCard) -> None:
    """Write the network in timm's layout; the folder is replaced in one step.

    `timm.create_model("local-dir:FOLDER", pretrained=True)` loads it. For hardray's own architectures,
    `import hard_ray.networks` comes first.
    """
    contract = network.contract
    size = contract.size or (images.img_size, images.img_size)
    plain = copy.deepcopy(network.model).to(memory_format=torch.contiguous_format)  # safetensors takes no other layout
    with replacing_folder(folder) as temporary:
        save_for_hf(
            plain,
            str(temporary),
            model_config={"label_names": list(images.classes)},
            data_config={
                "input_size": (images.in_chans, *size),
                "mean": list(contract.mean),
                "std": list(contract.std),
                "interpolation": contract.interpolation,
                "crop_pct": card.crop_pct,
            },
            safe_serialization=True,
        )
        write_text(temporary / "README.md", _card(network, images, card))


def _card(network: Network, images: ImageSpec, card: ModelCard) -> str:
    own = type(network.model).__module__.startswith("hard_ray.")
    imports = "import timm\nimport hard_ray.networks  # registers the architecture\n" if own else "import timm\n"
    parameters = sum(parameter.numel() for parameter in network.model.parameters())
    return f"""---
tags:
- image-classification
- timm
library_name: timm
---
# {network.architecture}

An image classifier with {len(images.classes)} classes, trained by knowledge distillation with hardray.

| | |
|---|---|
| parameters | {parameters:,} |
| input | {images.in_chans} x {images.img_size} x {images.img_size} |
| mean, std | {network.contract.mean}, {network.contract.std} |
| data | {card.data} |
| teacher | {card.teacher} |
| objective | {card.objective} |
| augmentor | {card.augmentor} |
| student updates | {card.updates:,} |

```python
{imports}
model = timm.create_model("local-dir:PATH", pretrained=True).eval()
```
"""
