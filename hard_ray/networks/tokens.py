"""Spatial features beside an embedding: where a network has them, and its answer with both.

Tokens are what timm's `forward_features` gives for each position: the patches of a transformer without its class and
register tokens, or the last map of a convolutional network. A teacher answers with its own, normalised. A student's map
is resized to the teacher's grid and projected to the width of its tokens by a linear layer, which is part of its model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hard_ray.errors import ModelError
from hard_ray.maths.resampling import resize
from hard_ray.maths.tokens import AnswerLayout, normalised
from hard_ray.networks.precision import widen

LAYER = "token_projection"
"""Name of the layer of a student's model that projects its tokens."""


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """Where the positions of an image are in the features of a model."""

    order: Literal["NCHW", "NHWC", "NLC"]
    """The axes: batch, channels, and positions by row and column, or in one sequence."""
    rows: int
    columns: int
    width: int
    """Channels."""
    prefix: int = 0
    """Tokens of a sequence before the first position, as class and register tokens are."""

    def __call__(self, features: Tensor) -> Float[Tensor, "batch width rows columns"]:
        """The map in the order NCHW."""
        match self.order:
            case "NCHW":
                return features
            case "NHWC":
                return features.permute(0, 3, 1, 2)
            case "NLC":
                found = features[:, self.prefix :].transpose(1, 2)
                return found.reshape(len(found), self.width, self.rows, self.columns)

    def code(self, name: str) -> str:
        """Python that does the same to the features called `name`."""
        match self.order:
            case "NCHW":
                return name
            case "NHWC":
                return f"{name}.permute(0, 3, 1, 2)"
            case "NLC":
                return f"{name}[:, {self.prefix}:].transpose(1, 2).unflatten(2, ({self.rows}, {self.columns}))"


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """How a model answers with its embedding and its tokens."""

    map: FeatureMap
    layout: AnswerLayout

    def __call__(self, model: nn.Module, images: Tensor) -> Float[Tensor, "batch values"]:
        """The answer to normalised images, from one forward pass."""
        features = cast(Any, model).forward_features(images)
        embedding = cast(Any, model).forward_head(features)
        found, projection = self.map(features), token_projection(model)
        if projection is None:
            tokens = normalised(widen(found.flatten(2).transpose(1, 2)))
        else:
            if tuple(found.shape[-2:]) != self.layout.grid:
                found = resize(found, self.layout.grid, mode="bilinear")
            tokens = widen(projection(found.flatten(2).transpose(1, 2)))
        return torch.cat([widen(embedding), tokens.flatten(1)], dim=1)

    def facts(self) -> dict[str, Any]:
        """Plain values, as an export keeps them."""
        return asdict(self)

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> TokenAnswer:
        """The inverse of `facts`."""
        return cls(FeatureMap(**facts["map"]), AnswerLayout(**facts["layout"]))


def token_projection(model: nn.Module) -> nn.Linear | None:
    """The layer that projects a student's tokens; None: the model has none."""
    return cast("nn.Linear | None", getattr(model, LAYER, None))


def add_token_projection(model: nn.Module, width: int, to: int) -> None:
    """Give a student's model a new layer, which projects tokens of one width to another."""
    model.add_module(LAYER, nn.Linear(width, to))


def remove_token_projection(model: nn.Module) -> nn.Linear | None:
    """Take that layer out of a model and return it, if it has one."""
    found = token_projection(model)
    if found is not None:
        delattr(model, LAYER)
    return found


def find_map(model: nn.Module, features: object, size: tuple[int, int], name: str, *, role: str) -> FeatureMap:
    """Where the positions are in a model's features of an image of `size` pixels.

    Raises ModelError if there are none, or if training leaves some out.
    """
    dropped = getattr(getattr(model, "patch_drop", None), "prob", 0.0)
    if dropped:
        raise ModelError(
            f"{role}.model {name} leaves out {100 * dropped:g} % of its patches in training, and objective.w_tokens "
            f"compares them all; leave patch_drop_rate out of {role}.model_kwargs, or use objective.w_tokens=0"
        )
    found = _map_of(model, features, size)
    if found is None or found.rows * found.columns < 2:
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ModelError(
            f"{role}.model {name} answers an image with features of shape {shape}, which have no positions; "
            f"objective.w_tokens wants a map or a sequence of patches of at least two; name another {role}.model, make "
            f"{role}.img_size larger, or use objective.w_tokens=0"
        )
    return found


def _map_of(model: nn.Module, features: object, size: tuple[int, int]) -> FeatureMap | None:
    if not isinstance(features, Tensor):
        return None
    if features.ndim == 4:
        return _map_of_grid(model, features)
    if features.ndim != 3:
        return None
    prefix = int(getattr(model, "num_prefix_tokens", 0))
    count, width = features.shape[1] - prefix, features.shape[2]
    grid = _grid(model, count, size)
    return None if grid is None else FeatureMap("NLC", *grid, width, prefix)


def _map_of_grid(model: nn.Module, features: Tensor) -> FeatureMap:
    """Channels come last if `output_fmt` of timm says so; models without it have them first or, if they fit, last."""
    _, second, third, last = features.shape
    width = getattr(model, "num_features", None)
    is_last = getattr(model, "output_fmt", None) == "NHWC" or (second != width and last == width)
    return FeatureMap("NHWC", second, third, last) if is_last else FeatureMap("NCHW", third, last, second)


def _grid(model: nn.Module, count: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of a sequence of positions: those of the patches, else a square; None: neither fits."""
    patches = getattr(model, "patch_embed", None)
    asked = getattr(patches, "dynamic_feat_size", None)
    side = math.isqrt(max(count, 0))
    known = [] if asked is None else [tuple(asked(size))]
    return next((grid for grid in (*known, (side, side)) if grid[0] * grid[1] == count), None)
