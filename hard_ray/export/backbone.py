"""A student of an embedding in timm's layout: its backbone, and beside it the projections to the teacher's answer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from safetensors.torch import save as safetensors_of
from torch import Tensor, nn

from hard_ray.errors import ModelError, readable
from hard_ray.files import read_json, write_bytes
from hard_ray.networks.tokens import TokenAnswer

PROJECTION = "projection.safetensors"
"""The projection's `weight`, shape (dimension, features), and its `bias`, shape (dimension,).

`tokens.weight` and `tokens.bias` are those of the tokens' projection, if there is one.
"""
FACTS = "projection"
"""Key of the projection's `dimension` and `teacher` in `config.json`, and of `tokens` if these are projected."""


def write_projection(projection: nn.Linear, folder: Path, *, tokens: nn.Linear | None = None) -> None:
    """Write the weights of a projection, and of that of tokens, into the folder of their backbone."""
    parts = projection.state_dict()
    if tokens is not None:
        parts |= {f"tokens.{name}": value for name, value in tokens.state_dict().items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in parts.items()}
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


def projection_code(dimension: int, tokens: TokenAnswer | None = None) -> str:
    """Python that projects features of the backbone to the teacher's embedding, and the map to the teacher's tokens."""
    imports, more = ("", "") if tokens is None else ("import torch.nn.functional as F\n", _token_code(tokens))
    return f"""```python
{imports}from safetensors.torch import load_file

projection = load_file("PATH/{PROJECTION}")
embedding = model(images) @ projection["weight"].T + projection["bias"]  # shape (batch, {dimension})
{more}```"""


def token_text(tokens: TokenAnswer) -> str:
    """What the projection of tokens is, as a sentence."""
    layout = tokens.layout
    return (
        "`tokens.weight` and `tokens.bias` project the features at each position, resized to a grid of "
        f"{layout.rows} x {layout.columns}, to the teacher's tokens of {layout.width:,} values, each normalised to "
        "mean 0 and variance 1."
    )


def _token_code(tokens: TokenAnswer) -> str:
    layout = tokens.layout
    features = tokens.map.code("model.forward_features(images)")
    return f"""
features = {features}  # shape (batch, channels, rows, columns)
features = F.interpolate(features, size={layout.grid}, mode="bilinear")
tokens = features.flatten(2).transpose(1, 2) @ projection["tokens.weight"].T + projection["tokens.bias"]
# shape (batch, {layout.rows * layout.columns}, {layout.width})
"""
