"""A student of an embedding in timm's layout: its backbone, and beside it the projection to the teacher's embedding."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from safetensors.torch import save as safetensors_of
from torch import Tensor, nn

from hard_ray.errors import ModelError, readable
from hard_ray.files import read_json, write_bytes

PROJECTION = "projection.safetensors"
"""The projection's `weight`, shape (dimension, features), and its `bias`, shape (dimension,)."""
FACTS = "projection"
"""Key of the projection's `dimension` and `teacher` in `config.json`."""


def write_projection(projection: nn.Linear, folder: Path) -> None:
    """Write the weights of a projection into the folder of its backbone."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in projection.state_dict().items()}
    write_bytes(folder / PROJECTION, safetensors_of(tensors))


def projection_facts(folder: Path) -> dict[str, Any] | None:
    """The `dimension` and `teacher` of the projection in a folder of timm's layout; None: it holds no projection."""
    if not (folder / PROJECTION).is_file():
        return None
    found = read_json(folder / "config.json", {}).get(FACTS)
    return found if isinstance(found, dict) else {}


def read_projection(folder: Path) -> dict[str, Tensor]:
    """The projection's tensors; raises ModelError if they cannot be read."""
    path = folder / PROJECTION
    try:
        return load_file(path)
    except Exception as error:  # safetensors has errors of its own
        raise ModelError(f"{path} cannot be read ({readable(error)}); want the file that hardray wrote") from None


def copy_projection(source: Path, to: Path) -> None:
    """Copy the projection of a folder in timm's layout to another one, if it has one."""
    if (source / PROJECTION).is_file():
        shutil.copy2(source / PROJECTION, to / PROJECTION)


def projection_code(dimension: int) -> str:
    """Python that projects features of the backbone to the teacher's embedding."""
    return f"""```python
from safetensors.torch import load_file

projection = load_file("PATH/{PROJECTION}")
embedding = model(images) @ projection["weight"].T + projection["bias"]  # shape (batch, {dimension})
```"""
