"""The autoencoders of diffusers behind hardray's interface.

Importing one class of diffusers costs seconds of processor time, so each is imported where it is needed.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from hard_ray.config.autoencoder_training import NetworkTraining, VqTraining
from hard_ray.errors import ModelError
from hard_ray.files import read_text
from hard_ray.networks.autoencoders.base import Autoencoder
from hard_ray.networks.file_kinds import file_kind


class DiffusersAutoencoder(Autoencoder):
    """Base of diffusers' autoencoders: images in [-1, 1], and sides halved between two levels."""

    def __init__(self, model: Any, *, latent_channels: int, in_chans: int) -> None:
        """`model` is an autoencoder of diffusers."""
        super().__init__(
            factor=2 ** (len(model.config.block_out_channels) - 1),
            latent_channels=latent_channels,
            channels=model.config.in_channels,
            in_chans=in_chans,
        )
        self.model = model

    def save(self, folder: Path) -> None:
        """Write diffusers' layout: `config.json` and `diffusion_pytorch_model.safetensors`."""
        self.model.save_pretrained(str(folder), safe_serialization=True)

    def _architecture(self) -> dict[str, Any]:
        return {name: repr(value) for name, value in self.model.config.items() if not name.startswith("_")}

    def _decode(self, latent: Tensor) -> Tensor:
        images: Tensor = self.model.decode(latent).sample
        return (images + 1) / 2


class KlAutoencoder(DiffusersAutoencoder):
    """`AutoencoderKL`: the latent is the mean of a normal distribution."""

    def __init__(self, model: Any, *, in_chans: int) -> None:
        super().__init__(model, latent_channels=model.config.latent_channels, in_chans=in_chans)

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and log-variance of each latent value."""
        return self._moments(self.prepare(images))

    def _moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        distribution = self.model.encode(2 * images - 1).latent_dist
        return distribution.mean, distribution.logvar

    def _encode(self, images: Tensor) -> Tensor:
        return self._moments(images)[0]


class TinyAutoencoder(DiffusersAutoencoder):
    """`AutoencoderTiny`: the TAESD family."""

    def __init__(self, model: Any, *, in_chans: int) -> None:
        super().__init__(model, latent_channels=model.config.latent_channels, in_chans=in_chans)

    def _encode(self, images: Tensor) -> Tensor:
        latent: Tensor = self.model.encode(2 * images - 1).latents
        return latent


class VqAutoencoder(DiffusersAutoencoder):
    """`VQModel`: the latent is the encoder's output, before quantisation."""

    def __init__(self, model: Any, *, in_chans: int) -> None:
        channels = model.config.vq_embed_dim or model.config.latent_channels
        super().__init__(model, latent_channels=channels, in_chans=in_chans)

    @property
    def codebook(self) -> Float[Tensor, "codes latent"]:
        """Every latent that a cell can be quantised to."""
        weight: Tensor = self.model.quantize.embedding.weight
        return weight

    def _encode(self, images: Tensor) -> Tensor:
        latent: Tensor = self.model.encode(2 * images - 1).latents
        return latent

    def _decode(self, latent: Tensor) -> Tensor:
        """Decode without the model's own `decode`, which would quantise again or look up codes by number."""
        model = self.model
        condition = latent if model.config.norm_type == "spatial" else None
        images: Tensor = model.decoder(model.post_quant_conv(latent), condition)
        return (images + 1) / 2


def _check_weights(path: Path) -> None:
    """Say what a file is that stands where the weights should, such as a pointer of Git LFS."""
    kind = file_kind(path) if path.is_file() else None
    if kind is not None and kind.problem:
        raise ModelError(f"autoencoder.model {path}: {kind.problem}; want the weights in safetensors; {kind.remedy}")


def load_diffusers(folder: Path, *, in_chans: int) -> DiffusersAutoencoder:
    """Load the model of a folder in diffusers' layout; only safetensors are read.

    Raises ModelError if it is of another kind, or its weights cannot be read or do not fit.
    """
    name = _class_name(folder / "config.json")
    _check_weights(folder / "diffusion_pytorch_model.safetensors")
    model_class = _model_class(name)
    try:
        model, found = model_class.from_pretrained(
            str(folder), use_safetensors=True, low_cpu_mem_usage=False, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # diffusers, safetensors and the system raise errors of their own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"autoencoder.model {folder}: the weights of {name} cannot be read ({reason}); "
            "want diffusion_pytorch_model.safetensors beside config.json, as save_pretrained writes it"
        ) from None
    missing = found["missing_keys"]
    if missing:
        raise ModelError(
            f"autoencoder.model {folder}: the weights lack {len(missing)} of {name}'s tensors, first "
            f"{sorted(missing)[0]!r}; give the config.json that belongs to them"
        )
    return _ADAPTERS[name](model, in_chans=in_chans)


def new_autoencoder(training: NetworkTraining, *, in_chans: int, img_size: int) -> DiffusersAutoencoder:
    """An untrained model; its weights follow torch's global seed."""
    levels = len(training.widths)
    shared = {
        "in_channels": in_chans,
        "out_channels": in_chans,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": training.widths,
        "layers_per_block": training.layers,
        "latent_channels": training.latent_channels,
        "norm_num_groups": math.gcd(8, *training.widths),
        "sample_size": img_size,
        "scaling_factor": 1.0,
        "mid_block_add_attention": False,
    }
    if isinstance(training, VqTraining):
        own = {"num_vq_embeddings": training.codes, "vq_embed_dim": training.latent_channels}
        return VqAutoencoder(_model_class("VQModel")(**shared, **own), in_chans=in_chans)
    return KlAutoencoder(_model_class("AutoencoderKL")(**shared), in_chans=in_chans)


def _model_class(name: str) -> Any:
    """Diffusers' class of a name, imported from its own module, which loads the least."""
    match name:
        case "AutoencoderKL":
            from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

            return AutoencoderKL
        case "AutoencoderTiny":
            from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

            return AutoencoderTiny
        case _:
            from diffusers.models.autoencoders.vq_model import VQModel

            return VQModel


_ADAPTERS = {"AutoencoderKL": KlAutoencoder, "AutoencoderTiny": TinyAutoencoder, "VQModel": VqAutoencoder}


def _class_name(path: Path) -> str:
    try:
        name = json.loads(read_text(path))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path}: cannot be read as diffusers' ({type(error).__name__}: {error}); want JSON with `_class_name`"
        ) from None
    if name not in _ADAPTERS:
        raise ModelError(f"{path}: `_class_name` is {name!r}; hardray uses {', '.join(_ADAPTERS)}")
    return str(name)
