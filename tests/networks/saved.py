"""Tiny autoencoders with random weights, in the files that real ones come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

KINDS = ("kl", "tiny", "vq", "taef2")
FACTORS = {"kl": 4, "tiny": 2, "vq": 4, "taef2": 8}
LATENT_CHANNELS = {"kl": 2, "tiny": 2, "vq": 6, "taef2": 32}
CLASSES = {"kl": "AutoencoderKL", "tiny": "AutoencoderTiny", "vq": "VQModel"}


def made(kind: str, channels: int = 3, **more: Any) -> Any:
    """One of diffusers' models."""
    import diffusers

    shared = {"in_channels": channels, "out_channels": channels, "latent_channels": LATENT_CHANNELS[kind]}
    levels = {
        "block_out_channels": (4, 8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "norm_num_groups": 4,
    }
    own: dict[str, dict[str, Any]] = {
        "kl": levels,
        "vq": {**levels, "num_vq_embeddings": 16},
        "tiny": {
            "encoder_block_out_channels": (8, 8),
            "decoder_block_out_channels": (8, 8),
            "num_encoder_blocks": (1, 1),
            "num_decoder_blocks": (1, 1),
        },
    }
    torch.manual_seed(0)
    return getattr(diffusers, CLASSES[kind])(**shared, **own[kind], **more)


def save(kind: str, folder: Path, channels: int = 3) -> Path:
    """A folder that `build_autoencoder` takes."""
    if kind == "taef2":
        from hard_ray.networks.autoencoders.taef2 import Taef2

        torch.manual_seed(0)
        model = Taef2(3)
        folder.mkdir(parents=True)
        for part in ("encoder", "decoder"):
            save_file(getattr(model, part).state_dict(), folder / f"taef2_{part}.safetensors")
        return folder
    model = made(kind, channels)
    if kind == "vq":
        torch.nn.init.normal_(model.quantize.embedding.weight)
    model.save_pretrained(folder)
    return folder
