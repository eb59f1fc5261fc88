"""Ways of training a network that its architecture leaves open: BatchNorm at rest, and gradients with less memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hard_ray.errors import ModelError, readable


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """The layers by which an image's output depends on its batch in training; those of timm are subclasses."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def freeze_batch_norms(network: nn.Module, *, role: str) -> None:
    """Give the weights of BatchNorm no gradient; ModelError: there is none.

    The network itself keeps the layers at rest, in every mode: see `Network.train`.
    """
    norms = batch_norms(network)
    if not norms:
        raise ModelError(
            f"{role}.freeze_bn is true, but {type(network).__name__} has no BatchNorm; want a network with it; leave "
            f"{role}.freeze_bn out"
        )
    for norm in norms:
        norm.requires_grad_(False)


def freeze_tower(network: nn.Module, *, role: str) -> nn.Module:
    """Give all weights but those of the class head no gradient, and return the head; ModelError: it has none.

    The network itself keeps the other layers at rest, in every mode: see `Network.train`.
    """
    find = getattr(network, "get_classifier", None)
    head = None if find is None else find()
    if not isinstance(head, nn.Module) or not list(head.parameters()):
        raise ModelError(
            f"{role}.freeze is tower, but {type(network).__name__} has no single layer of classes to train; want a "
            f"network with a class head; leave {role}.freeze out"
        )
    network.requires_grad_(False)
    head.requires_grad_(True)
    return head


def rest(norms: list[_BatchNorm]) -> None:
    """Let each layer use its averages and leave them as they are, whatever the mode of the layers below it."""
    for norm in norms:
        norm.training = False


def checkpoint_gradients(network: nn.Module, *, role: str) -> None:
    """Keep only the inputs of blocks for the backward pass, which computes the rest again; ModelError: timm cannot."""
    enable = getattr(network, "set_grad_checkpointing", None)
    problem = "timm knows no blocks of it"
    if enable is not None:
        try:
            enable(True)
        except Exception as error:  # models without it assert, each in its own way
            problem = readable(error)
        else:
            return
    raise ModelError(
        f"{role}.grad_checkpointing is true, but {type(network).__name__} cannot compute its activations again "
        f"({problem}); want a network for which timm offers this; leave {role}.grad_checkpointing out, or divide the "
        "batch with optim.accumulate"
    )


@contextmanager
def recomputing(network: nn.Module) -> Iterator[None]:
    """The backward pass within the block leaves averages of BatchNorm alone, though it goes forward once more."""
    norms = [norm for norm in batch_norms(network) if norm.training and norm.track_running_stats]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = cast(float, momentum), count
