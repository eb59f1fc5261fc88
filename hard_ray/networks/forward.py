"""Try one forward pass before a run: some networks take some input sizes only."""

from __future__ import annotations

import torch
from timm.models import get_pretrained_cfg

from hard_ray.config.networks import NetworkConfig
from hard_ray.errors import ModelError, readable
from hard_ray.networks.network import ImageSpec, Network
from hard_ray.networks.precision import resting


def check_forward(
    network: Network, config: NetworkConfig, images: ImageSpec, *, role: str, outputs: int | None = None
) -> None:
    """Raise a ModelError unless the network answers an image of this size with so many finite numbers.

    `outputs` is the dimension of an embedding; None: one number for each class.
    """
    parameter = next(network.parameters(), None)
    device = None if parameter is None else parameter.device
    side, channels = images.img_size, images.in_chans
    try:
        with resting(network), torch.inference_mode():
            logits = network(torch.zeros(1, channels, side, side, device=device))
    except Exception as error:  # each of timm's models raises errors of its own
        size = network.contract.size or (side, side)
        raise ModelError(
            f"{role}.model {config.model} cannot take images of {channels} x {size[0]} x {size[1]} "
            f"({readable(error)}); want an input size that it takes; {_size_remedy(config, size[0], role)}"
        ) from error
    wanted = (1, len(images.classes) if outputs is None else outputs)
    if tuple(logits.shape) != wanted:
        raise ModelError(
            f"{role}.model {config.model} answers an image with numbers of shape {tuple(logits.shape)}; want "
            f"{wanted}, one for each class; name a classifier as {role}.model, or correct {role}.model_kwargs"
        )
    if not bool(logits.isfinite().all()):
        raise ModelError(
            f"{role}.model {config.model} answers a black image with numbers that are not finite; want finite logits; "
            f"give other weights as {role}.checkpoint"
        )


def _size_remedy(config: NetworkConfig, size: int, role: str) -> str:
    known = getattr(get_pretrained_cfg(config.model), "input_size", None) if ":" not in config.model else None
    if known and known[-1] != size:
        return f"set {role}.img_size={known[-1]}, to which images are then resized, or another data.img_size"
    return f"set {role}.img_size, to which images are then resized, or another data.img_size"
