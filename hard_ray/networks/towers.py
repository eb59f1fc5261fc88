"""Towers: frozen networks whose features are used, and the heads that are put on them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import timm
import torch
from timm.data.model_config import resolve_input_data_config
from timm.models._input import get_model_args
from torch import Tensor, nn

from hard_ray.config.networks import NetworkConfig
from hard_ray.errors import ModelError, readable
from hard_ray.networks.network import (
    ImageSpec,
    InputContract,
    Network,
    input_contract,
    model_with_own_head,
    pretrained_cfg,
)
from hard_ray.networks.precision import resting
from hard_ray.networks.tower import ARCHITECTURE, HeadKind, TowerClassifier

KEPT = ("license", "origin_url", "paper_name", "paper_ids")
"""Facts about the tower's weights that its folder keeps."""


@dataclass(frozen=True, slots=True)
class TowerRecipe:
    """How a tower is made: the arguments of `hardray_tower`, which `config.json` keeps."""

    architecture: str
    args: dict[str, Any]
    is_projected: bool = False

    def as_argument(self) -> dict[str, Any]:
        """The value of `tower`."""
        return {"architecture": self.architecture, "args": self.args, "is_projected": self.is_projected}


@dataclass(frozen=True, slots=True)
class Head:
    """A fitted head: logits = weight @ feature + bias, or with `scale` the cosine of both times the scale + bias."""

    weight: Tensor
    """Shape (classes, features)."""
    bias: Tensor
    """Shape (classes,)."""
    scale: float | None = None
    """None: a linear head."""

    @property
    def kind(self) -> HeadKind:
        """The kind of the head's module."""
        return "linear" if self.scale is None else "cosine"


@dataclass(frozen=True, slots=True)
class Tower:
    """A tower in evaluation mode."""

    network: Network
    """Takes images in [0, 1] and returns features, shape (batch, width)."""
    recipe: TowerRecipe
    name: str
    """As the user wrote it."""

    @property
    def width(self) -> int:
        """The number of features."""
        return int(cast(Any, self.network.model).num_features)

    def with_head(self, head: Head) -> Network:
        """A frozen classifier of this tower's weights and a head; raises ModelError if their sizes differ."""
        classes, width = head.weight.shape
        if width != self.width:
            raise ModelError(
                f"teacher.model {self.name} has {self.width} features, the head takes {width}; want the tower that the "
                "head was fitted on; name that tower, or fit a head on this one"
            )
        model = _made(self.recipe, self.network, classes, head.kind, pretrained_cfg(self.network.model))
        model.tower.load_state_dict(cast(TowerClassifier, self.network.model).tower.state_dict())
        state = {"weight": head.weight, "bias": head.bias}
        state |= {} if head.scale is None else {"scale": torch.tensor(head.scale)}
        model.head.load_state_dict(state)
        return Network(model, self.network.contract).freeze()


def build_tower(config: NetworkConfig, images: ImageSpec) -> Tower:
    """A model without its class head, with the weights that `config` names.

    Raises ModelError if it is unknown, its weights do not fit, or it takes no images of this size.
    """
    model, notes = model_with_own_head(config, images, role="teacher")
    contract = input_contract(model, config, images)
    recipe, inner, facts = _taken_apart(model)
    whole = Network(model, contract)
    cfg = {**facts, **{key: value for key, value in pretrained_cfg(model).items() if key in KEPT and value}}
    made = _made(recipe, whole, 0, "linear", cfg)
    made.tower.load_state_dict(inner.state_dict())
    network = Network(made, contract).freeze()
    network.notes = notes
    tower = Tower(network, recipe, config.model)
    check_features(tower, images)
    return tower


def tower_of(model: nn.Module, contract: InputContract, name: str, *, is_projected: bool = False) -> Tower:
    """A tower from one of timm's models in memory; with `is_projected`, its outputs are the features."""
    recipe = TowerRecipe(str(pretrained_cfg(model)["architecture"]), _json(get_model_args(model)), is_projected)
    made = _made(recipe, Network(model, contract), 0, "linear", {})
    made.tower.load_state_dict(model.state_dict())
    return Tower(Network(made, contract).freeze(), recipe, name)


def _taken_apart(model: nn.Module) -> tuple[TowerRecipe, nn.Module, dict[str, Any]]:
    """How the tower is made, the tower itself, and facts for the folder; a head is taken off."""
    if isinstance(model, TowerClassifier):
        inner, arguments = model.tower, cast(Any, model)._model_args["tower"]
        args = _json(get_model_args(inner))
        return TowerRecipe(arguments["architecture"], args, model.is_projected), inner, {}
    if not hasattr(model, "forward_head") or not hasattr(model, "reset_classifier"):
        name = pretrained_cfg(model).get("architecture")
        raise ModelError(
            f"teacher.model {name} gives no features before a classifier; want one of timm's classifiers as tower; "
            "name another one"
        )
    cast(Any, model).reset_classifier(0)
    return TowerRecipe(str(pretrained_cfg(model)["architecture"]), _json(get_model_args(model)), False), model, {}


def _json(arguments: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in copy.deepcopy(arguments).items()}


def _made(recipe: TowerRecipe, like: Network, classes: int, head: HeadKind, facts: dict[str, Any]) -> TowerClassifier:
    """A tower of this recipe with the input of another network."""
    contract = like.contract
    channels, *native = resolve_input_data_config(like.model)["input_size"]
    size = contract.size or tuple(native)
    cfg = {
        **{key: facts[key] for key in KEPT if facts.get(key)},
        "num_classes": classes,
        "input_size": (channels, *size),
        "fixed_input_size": contract.size is not None,
        "mean": contract.mean,
        "std": contract.std,
        "interpolation": contract.interpolation,
        "crop_pct": 1.0,
        "classifier": "head",
        "first_conv": None,
    }
    size_argument: dict[str, Any] = {} if contract.size is None else {"img_size": list(contract.size)}
    try:
        model = timm.create_model(
            ARCHITECTURE,
            pretrained=False,
            pretrained_cfg=cfg,
            num_classes=classes,
            in_chans=channels,
            tower=recipe.as_argument(),
            head=head,
            **size_argument,
        )
    except Exception as error:  # timm raises the errors of its models
        raise ModelError(
            f"teacher.model {recipe.architecture} cannot be made again from its own arguments ({readable(error)}); "
            "want a model that timm makes from its name and arguments; name another tower"
        ) from error
    return cast(TowerClassifier, model)


def check_features(tower: Tower, images: ImageSpec) -> None:
    """Raise a ModelError unless the tower answers an image of this size with one finite vector of its width."""
    side, where = images.img_size, tower.network.mean.device
    try:
        with resting(tower.network), torch.inference_mode():
            features = tower.network(torch.full((1, images.in_chans, side, side), 0.5, device=where))
    except Exception as error:  # as above
        raise ModelError(
            f"teacher.model {tower.name} cannot take images of {images.in_chans} x {side} x {side} "
            f"({readable(error)}); want an input size that it takes; set teacher.img_size, to which images are then "
            "resized, or another data.img_size"
        ) from error
    if tuple(features.shape) != (1, tower.width):
        raise ModelError(
            f"teacher.model {tower.name} answers an image with numbers of shape {tuple(features.shape)}; want "
            f"{(1, tower.width)}, a feature vector; name another tower, or set global_pool in teacher.model_kwargs"
        )
    if not bool(features.isfinite().all()):
        raise ModelError(
            f"teacher.model {tower.name} answers a grey image with features that are not finite; want finite ones; "
            "give other weights as teacher.checkpoint"
        )


def names_of(count: int, what: str) -> Sequence[str]:
    """Names of outputs that have none: `prototype 0`, ..."""
    return tuple(f"{what} {number}" for number in range(count))
