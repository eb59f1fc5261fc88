"""A frozen tower with a class head, registered with timm as `hardray_tower`.

The tower is any of timm's models without its classifier. `model_args` of a saved folder say how it is made, so that
`timm.create_model("local-dir:FOLDER", pretrained=True)` loads tower and head together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._input import get_model_traits
from torch import Tensor, nn

from hard_ray.networks.precision import widen

ARCHITECTURE = "hardray_tower"
HeadKind = Literal["linear", "cosine"]

default_cfgs = generate_default_cfgs(
    {f"{ARCHITECTURE}.untrained": {"num_classes": 0, "input_size": (3, 224, 224), "classifier": "head"}}
)


class CosineHead(nn.Module):
    """Logits scale * cos(feature, direction) + bias, computed in float32 whatever the tower computes in.

    A prototype is a direction and the scale is 1 / temperature; in CLIP the directions are the texts' features and the
    scale is the exponential of `logit_scale`.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(classes, features), dim=1))
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch classes"]:
        """Logits; features and weights need not have length one."""
        with torch.autocast(features.device.type, enabled=False):
            directions = F.normalize(widen(features), dim=1)
            return self.scale * F.linear(directions, F.normalize(self.weight, dim=1)) + self.bias


class TowerClassifier(nn.Module):
    """A timm model whose pooled features go into a linear or cosine head; without classes, the features come out."""

    def __init__(
        self,
        tower: Mapping[str, Any] | None = None,
        head: HeadKind = "linear",
        num_classes: int = 0,
        in_chans: int = 3,
        img_size: int | tuple[int, int] | None = None,
    ) -> None:
        """Make the tower that `tower` describes: `architecture`, `args` of timm, and `is_projected`.

        With `is_projected`, the features are the tower's own outputs, as CLIP's are; otherwise they are what goes into
        its classifier. `img_size` is the size of images that the tower takes; None: any.
        """
        super().__init__()
        if tower is None:
            raise ValueError("want tower={architecture: NAME, args: {...}}; `hardray fit-head` makes such models")
        arguments = {**tower.get("args", {}), "in_chans": in_chans}
        if img_size is not None and "img_size" in arguments:
            arguments["img_size"] = img_size
        self.tower = timm.create_model(tower["architecture"], pretrained=False, **arguments)
        self.is_projected = bool(tower.get("is_projected", False))
        self.head_kind: HeadKind = head
        self.in_chans, self.num_classes = in_chans, num_classes
        self.num_features = self.head_hidden_size = feature_width(self.tower, is_projected=self.is_projected)
        self.head = self._made_head()
        fixed = bool(get_model_traits(self.tower)["fixed_input_size"])
        self._traits: dict[str, Any] = {"fixed_input_size": fixed or img_size is not None, "first_conv": None}

    def _made_head(self) -> nn.Module:
        if not self.num_classes:
            return nn.Identity()
        if self.head_kind == "cosine":
            return CosineHead(self.num_features, self.num_classes)
        return nn.Linear(self.num_features, self.num_classes)

    def forward_features(self, images: Tensor) -> Tensor:
        """The tower's features of normalised images, shape (batch, num_features)."""
        tower = cast(Any, self.tower)
        features: Tensor
        if self.is_projected:
            features = tower(images)
        else:
            features = tower.forward_head(tower.forward_features(images), pre_logits=True)
        return features

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits, or with `pre_logits` the features themselves."""
        logits: Tensor = features if pre_logits else self.head(features)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Logits of normalised images; their features if there are no classes."""
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a new linear one for `num_classes`; 0 takes it off."""
        del global_pool
        self.num_classes, self.head_kind = num_classes, "linear"
        self.head = self._made_head()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Let the tower compute its activations again in the backward pass."""
        cast(Any, self.tower).set_grad_checkpointing(enable)

    def set_input_size(self, img_size: int | tuple[int, int]) -> None:
        """Let the tower take images of another size, with its position embeddings resampled."""
        cast(Any, self.tower).set_input_size(img_size=img_size)
        size = (img_size, img_size) if isinstance(img_size, int) else img_size
        self._traits = {**self._traits, "img_size": size}


def feature_width(model: nn.Module, *, is_projected: bool = False) -> int:
    """The number of features of one of timm's models before its classifier, or after it."""
    if is_projected:
        return int(cast(Any, model).num_classes)
    return int(cast(Any, getattr(model, "head_hidden_size", None) or model.num_features))


@register_model
def hardray_tower(pretrained: bool = False, *, device: Any = None, dtype: Any = None, **kwargs: Any) -> TowerClassifier:
    """A frozen tower with a class head, made by `hardray fit-head`."""
    model: TowerClassifier = build_model_with_cfg(TowerClassifier, ARCHITECTURE, pretrained, **kwargs)
    return model.to(device=device, dtype=dtype)
