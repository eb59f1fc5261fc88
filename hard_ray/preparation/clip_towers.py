"""CLIP models of open_clip: their image tower as one of timm's models, and features of texts."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from hard_ray.errors import ModelError, readable
from hard_ray.export.timm_folder import EvalView
from hard_ray.networks.network import ImageSpec, InputContract
from hard_ray.networks.towers import Tower, tower_of
from hard_ray.storage.fetched import local_model

AGREEMENT = 1e-4
"""Largest difference of two towers' features, as a share of the largest feature, at which they are the same network."""
TEXTS = 256
"""Texts that go through the text tower together."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A CLIP model whose image tower is one of timm's."""

    tower: Tower
    """Its features are the image tower's outputs, before they get length one."""
    model: Any
    """open_clip's model, with the text tower."""
    tokenizer: Any
    images: ImageSpec
    view: EvalView

    @property
    def scale(self) -> float:
        """What cosines are multiplied by."""
        return float(self.model.logit_scale.detach().exp())

    @property
    def bias(self) -> float:
        """What is added to all logits: SigLIP has it."""
        bias = getattr(self.model, "logit_bias", None)
        return 0.0 if bias is None else float(bias.detach())

    @torch.inference_mode()
    def directions(self, names: Sequence[str], prompts: Sequence[str]) -> Float[Tensor, "classes width"]:
        """A unit vector for each class: the mean over its prompts of their features, each of length one.

        Source: Radford et al. 2021 (CLIP), arXiv:2103.00020, section 3.1.4.
        """
        texts = [prompt.replace("{}", name) for name in names for prompt in prompts]
        parts = [self.tokenizer(texts[start : start + TEXTS]) for start in range(0, len(texts), TEXTS)]
        features = torch.cat([F.normalize(self.model.encode_text(part).float(), dim=1) for part in parts])
        return F.normalize(features.view(len(names), len(prompts), -1).mean(dim=1), dim=1)


def open_clip_model(name: str) -> Clip:
    """Load a CLIP model: `hf-hub:ORG/NAME`, or `local-dir:FOLDER` with `open_clip_config.json` and weights.

    Raises ModelError if open_clip is not installed, the model cannot be loaded, or timm has no such image tower.
    """
    try:
        import open_clip
    except ImportError:
        raise ModelError(
            "zero-shot heads need open_clip, which is not installed; want the extra `clip`; install it with "
            "`pip install 'hardray[clip]'`"
        ) from None
    if not name.startswith(("hf-hub:", "local-dir:")):
        raise ModelError(
            f"--tower {name}: is no CLIP model that open_clip loads; want hf-hub:ORG/NAME, or local-dir:FOLDER with "
            "open_clip_config.json; name such a model"
        )
    name = local_model(name)
    source, _, place = name.partition(":")
    name = f"{source}:{Path(place).expanduser()}" if source == "local-dir" else name
    try:
        model = open_clip.create_model(name, precision="fp32", require_pretrained=True).eval()
        tokenizer = open_clip.get_tokenizer(name)
        preprocess = open_clip.get_model_preprocess_cfg(model)
    except Exception as error:  # open_clip raises the errors of files, of the hub and of its models
        raise ModelError(
            f"--tower {name}: open_clip cannot load it ({readable(error)}); want a CLIP model with "
            "open_clip_config.json and weights; look at the name, the files and the network"
        ) from error
    return _opened(name, model, tokenizer, preprocess)


def _opened(name: str, model: Any, tokenizer: Any, preprocess: dict[str, Any]) -> Clip:
    side = preprocess["size"]
    height, width = (side, side) if isinstance(side, int) else side
    if height != width:
        raise ModelError(f"--tower {name} takes images of {height} x {width} pixels; want square ones; name another")
    contract = InputContract(tuple(preprocess["mean"]), tuple(preprocess["std"]), (height, width), "bicubic")
    images = ImageSpec(height, 3, ())
    converted, is_projected = _timm_model(name, model.visual, height)
    tower = tower_of(converted, contract, name, is_projected=is_projected)
    example = torch.linspace(0, 1, 2 * 3 * height * width).view(2, 3, height, width)
    with torch.inference_mode():
        wanted = model.visual((example - tower.network.mean) / tower.network.std)
        found = tower.network(example)
    if found.shape != wanted.shape or float((found - wanted).abs().max()) > AGREEMENT * float(wanted.abs().max()):
        raise ModelError(_no_timm_model(name, "its features differ from those of timm's model of the same weights"))
    view = EvalView(1.0, "squash" if preprocess["resize_mode"] == "squash" else "center", preprocess["interpolation"])
    return Clip(tower, model, tokenizer, images, view)


def _timm_model(name: str, visual: Any, side: int) -> tuple[nn.Module, bool]:
    """The image tower as one of timm's models, and whether its features are its outputs."""
    if hasattr(visual, "trunk"):
        return _of_trunk(name, visual)
    if not hasattr(visual, "class_embedding"):
        raise ModelError(_no_timm_model(name, f"it is a {type(visual).__name__}"))
    conv, blocks = visual.conv1, visual.transformer.resblocks
    first = blocks[0]
    quick = type(first.mlp.gelu).__name__ == "QuickGELU"
    architecture = "vit_base_patch16_clip_quickgelu_224" if quick else "vit_base_patch16_clip_224"
    model: Any
    try:
        model = timm.create_model(
            architecture,
            pretrained=False,
            patch_size=int(conv.kernel_size[0]),
            embed_dim=int(conv.out_channels),
            depth=len(blocks),
            num_heads=int(first.attn.num_heads),
            mlp_ratio=first.mlp.c_fc.out_features / first.mlp.c_fc.in_features,
            num_classes=int(visual.output_dim),
            img_size=side,
        )
        state = checkpoint_filter_fn({f"visual.{key}": value for key, value in visual.state_dict().items()}, model)
        model.load_state_dict(state)
    except (RuntimeError, AttributeError, ValueError, AssertionError) as error:
        raise ModelError(_no_timm_model(name, readable(error))) from error
    return model.eval(), True


def _of_trunk(name: str, visual: Any) -> tuple[nn.Module, bool]:
    """The tower of a model that open_clip built on timm, with its projection as timm's classifier."""
    trunk: Any = visual.trunk
    head = {key: part for key, part in visual.head.named_children() if not isinstance(part, nn.Dropout)}
    if not head:
        return trunk, bool(trunk.num_classes)
    if list(head) != ["proj"] or not isinstance(head["proj"], nn.Linear):
        raise ModelError(_no_timm_model(name, f"its projection is {', '.join(head)}"))
    projection = head["proj"]
    trunk = copy.deepcopy(trunk)  # the model's own answers are compared with
    trunk.reset_classifier(projection.out_features)
    classifier = trunk.get_classifier()
    if not isinstance(classifier, nn.Linear):
        raise ModelError(_no_timm_model(name, "timm's model of it has no linear classifier"))
    bias = torch.zeros(projection.out_features) if projection.bias is None else projection.bias
    classifier.load_state_dict({"weight": projection.weight, "bias": bias})
    return trunk.eval(), True


def _no_timm_model(name: str, why: str) -> str:
    return (
        f"--tower {name}: timm does not make its image tower ({why}); want a vision transformer of CLIP, or a model "
        "that open_clip builds on timm; name another one"
    )
