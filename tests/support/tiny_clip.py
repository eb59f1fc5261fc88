"""A CLIP model with random weights as a folder of open_clip's, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "layers": 2, "width": 48, "head_width": 16, "patch_size": 8}
PREPROCESS = {"mean": [0.48, 0.45, 0.4], "std": [0.26, 0.26, 0.27]}


def save_clip(folder: Path, vision: dict[str, Any] = VIT, **settings: Any) -> Path:
    """Write `open_clip_config.json` and weights; vision and text tower share 24 axes."""
    from open_clip.model import CLIP, CustomTextCLIP

    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT, **settings}
    kind = CustomTextCLIP if settings.get("custom_text") else CLIP
    torch.manual_seed(3)
    arguments = {key: value for key, value in config.items() if key != "custom_text"}
    model = kind(**arguments)
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {**PREPROCESS, "size": vision["image_size"]}})
    )
    return folder
